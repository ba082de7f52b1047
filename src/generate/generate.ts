import type { ByPurpose } from "../gpu/memory.ts";
import type { KvCache, KvUsage, Place } from "../kv/cache.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import { uniform } from "./random.ts";
import { sample } from "./sampler.ts";
import type { Sequence } from "./sequence.ts";

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
  /** From the start of the step until its tokens were chosen, the read-back of the logits included. */
  readonly seconds: number;
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

/**
 * Generate for all sequences at once, a token each a step, until every one is finished. They make one ragged batch; one
 * that ends leaves it. Sampling is on the CPU, with random numbers by (seed, sequence id, step).
 *
 * Yields after every step. Throws OutOfPages or BadInput when the cache is full, DeviceLost, OutOfMemory; places in the
 * cache are given back however it ends.
 */
export async function* generate(
  model: Gpt2,
  cache: KvCache,
  sequences: readonly Sequence[],
): AsyncGenerator<GeneratedStep> {
  const places = new Map<Sequence, Place>();
  const close = (sequence: Sequence) => {
    const place = places.get(sequence);
    places.delete(sequence);
    if (place) cache.close(place);
  };
  try {
    // A cache that the device had no room for is known only now.
    await model.gpu.settle();
    for (const sequence of sequences) places.set(sequence, cache.open());
    for (let step = 0; places.size > 0; step++) {
      const { memory } = model.gpu;
      memory.resetPeak();
      const start = performance.now();
      const running = [...places.keys()];
      const { logits, computedTokens } = await computeLogits(model, cache, running, places);
      const tokens = running.map((sequence, i): GeneratedToken => {
        const u = uniform(sequence.sampling.seed, sequence.id, sequence.generatedLength);
        const token = sample(logits[i]!, sequence.tokens, sequence.sampling, u);
        return { sequence, token, text: sequence.accept(token) };
      });
      const seconds = (performance.now() - start) / 1e3;
      yield {
        step,
        tokens,
        computedTokens,
        seconds,
        kv: cache.usage(),
        memory: {
          current: memory.current,
          peak: memory.peak,
          byPurpose: memory.currentByPurpose,
          peakByPurpose: memory.peakOfEach,
        },
      };
      for (const sequence of running) if (sequence.finishReason !== null) close(sequence);
    }
  } finally {
    for (const sequence of [...places.keys()]) close(sequence);
  }
}

/** Compute what the cache does not hold; logits after the last token of each sequence, a row [V] each. */
async function computeLogits(
  model: Gpt2,
  cache: KvCache,
  running: readonly Sequence[],
  places: ReadonlyMap<Sequence, Place>,
): Promise<{ logits: Float32Array[]; computedTokens: number }> {
  const items = running.map((s) => ({ place: places.get(s)!, tokens: s.tokens.slice(s.computed) }));
  const logits = model.forward(cache, items);
  try {
    const values = await logits.read();
    // A cache that forgets is given everything again in the next step.
    running.forEach((s, i) => {
      if (cache.remembers) s.advance(items[i]!.tokens.length);
    });
    const vocabulary = logits.cols;
    return {
      logits: running.map((_, i) => values.subarray(i * vocabulary, (i + 1) * vocabulary)),
      computedTokens: items.reduce((n, item) => n + item.tokens.length, 0),
    };
  } finally {
    logits.free();
  }
}
