import type { ByPurpose } from "../gpu/memory.ts";
import type { KvCache, KvUsage } from "../kv/cache.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import { BatchRunner, type Member, type Timing } from "./batch-runner.ts";
import type { Sequence } from "./sequence.ts";

export type { Timing } from "./batch-runner.ts";

/** One token of one sequence, with what the step that made it cost. */
export interface GeneratedToken {
  readonly sequence: Sequence;
  readonly token: number;
  /** Text that this token completes; may be empty. */
  readonly text: string;
}

/** One step of the batch: a token for every sequence that was running. */
export interface GeneratedStep {
  /** From 0; step 0 computes the prompts. */
  readonly step: number;
  readonly tokens: readonly GeneratedToken[];
  /** Tokens that the model computed in this step, all sequences together. */
  readonly computedTokens: number;
  /** See GenerateOptions. */
  readonly seconds: number;
  /** Tokens computed ahead so far and thrown away, because their sequence had ended. */
  readonly surplus: number;
  readonly kv: KvUsage;
  /** Bytes of all GPU buffers after the step, and the most there were during it. */
  readonly memory: {
    readonly current: number;
    readonly peak: number;
    readonly byPurpose: ByPurpose;
    /** The most of each purpose, at moments of its own. */
    readonly peakByPurpose: ByPurpose;
  };
}

export interface GenerateOptions {
  /**
   * "visible": each step is submitted when the token before it is known, and its seconds are what a caller waits for.
   * "pipelined" (the default): the GPU runs ahead and tokens come back in rounds; a step's seconds are its round's time over
   * the steps of the round. The tokens are the same.
   */
  readonly timing?: Timing;
  /** Most rows of prompts that are computed at once, see prefill.ts; the tokens are the same. */
  readonly prefillChunk?: number | undefined;
}

/**
 * Generate for all sequences at once, a token each a step, until every one is finished. They make one batch; one that ends
 * leaves it. Sampling is on the GPU, with random numbers by (seed, sequence id, step).
 *
 * Yields after every step. Throws OutOfPages or BadInput when the cache is full, DeviceLost, OutOfMemory; places in the
 * cache are given back however it ends.
 */
export async function* generate(
  model: Gpt2,
  cache: KvCache,
  sequences: readonly Sequence[],
  { timing = "pipelined", prefillChunk }: GenerateOptions = {},
): AsyncGenerator<GeneratedStep> {
  const { memory } = model.gpu;
  let members: Member[] = [];
  let runner: BatchRunner | undefined;
  let surplus = 0;
  try {
    // A cache that the device had no room for is known only now.
    await model.gpu.settle();
    for (const sequence of sequences) members.push({ sequence, place: cache.open() });
    for (let step = 0; members.length > 0; step++) {
      memory.resetPeak();
      // A batch that lost a sequence gives what it has computed ahead for the others; then they make a batch of their own.
      const isWhole = runner?.members.length === members.length;
      if (runner && !isWhole && runner.ahead === 0) {
        await runner.close();
        runner = undefined;
      }
      const mayLaunch = runner === undefined || isWhole;
      runner ??= new BatchRunner(model, cache, members, timing, prefillChunk);
      const row = await runner.next(mayLaunch);
      const batch = runner;
      const tokens = members.map((member): GeneratedToken => {
        const { sequence } = member;
        const token = batch.tokenOf(member, row);
        return { sequence, token, text: sequence.accept(token) };
      });
      const ended = members.filter(({ sequence }) => sequence.finishReason !== null);
      surplus += ended.length * batch.ahead;
      yield {
        step,
        tokens,
        computedTokens: row.computedTokens,
        seconds: row.seconds,
        surplus,
        kv: cache.usage(),
        memory: {
          current: memory.current,
          peak: memory.peak,
          byPurpose: memory.currentByPurpose,
          peakByPurpose: memory.peakOfEach,
        },
      };
      members = members.filter((member) => !ended.includes(member));
      for (const { place } of ended) cache.close(place);
    }
  } finally {
    await runner?.close();
    for (const { place } of members) cache.close(place);
  }
}
