import { check } from "../../src/check.ts";
import { type EngineParts, makeSpace } from "../../src/generate/engine-open.ts";
import { engineSettings } from "../../src/generate/engine-settings.ts";
import type { StepDevice } from "../../src/generate/engine-steps.ts";
import type { EngineOptions } from "../../src/generate/engine-types.ts";
import { OutOfMemory } from "../../src/gpu/errors.ts";
import type { RaggedBatch, RaggedResult } from "../../src/model/ragged-batch.ts";

export const CONTEXT = 64;
export const VOCABULARY = 100;

/** What a fake model answers: of a sequence's number and its token's, and nothing else. */
export const tokenOf = (sequenceId: number, generated: number): number =>
  1 + ((sequenceId * 31 + generated * 7) % (VOCABULARY - 1));

/**
 * A device without a model, for what the engine does around one. It answers after `delay` turns of the event loop, and fails when told
 * to. Rows of tokens seen and pages on the host are counted.
 */
export class FakeDevice implements StepDevice {
  launches = 0;
  freed = false;
  readonly openRows = new Set<number>();
  /** The launch with this number is rejected with this error. */
  failure: { readonly launch: number; readonly error: Error } | undefined;
  /** Called with each batch. */
  onLaunch: ((batch: RaggedBatch) => void) | undefined;
  #rows = 0;

  launch(batch: RaggedBatch): { launch: number; result: Promise<RaggedResult> } {
    check(!this.freed, "the device was given back");
    const launch = this.launches++;
    this.onLaunch?.(batch);
    const result = this.#answer(batch, launch);
    result.catch(() => {});
    return { launch, result };
  }

  async #answer({ samples }: RaggedBatch, launch: number): Promise<RaggedResult> {
    await new Promise<void>((resolve) => setImmediate(resolve));
    if (this.failure?.launch === launch) throw this.failure.error;
    const tokens = samples.map(({ sequenceId, generated }) => tokenOf(sequenceId, generated));
    return { tokens: Uint32Array.from(tokens), logits: new Map() };
  }

  copyPages(): void {}

  /** The next so many copies to the host find no room. */
  refusedReads = 0;

  async readPages(pages: readonly number[]) {
    if (this.refusedReads-- > 0) throw new OutOfMemory("no room for staging");
    return { pages: pages.length, bytes: 0, pieces: [] };
  }

  writePages(): void {}

  openSeen(): number {
    this.openRows.add(++this.#rows);
    return this.#rows;
  }

  closeSeen(row: number): void {
    check(this.openRows.delete(row), `row ${row} is not open`);
  }

  free(): void {
    check(!this.freed, "the device is given back twice");
    this.freed = true;
  }
}

/** Parts of an engine on a fake device, with 32 pages unless told otherwise. */
export function fakeParts(options: EngineOptions = {}): EngineParts & { readonly device: FakeDevice } {
  const settings = engineSettings({ maxBatchedTokens: 256, ...options }, CONTEXT, "gpu");
  const pages = options.kvPages ?? 32;
  const tokens = pages * settings.pageSize;
  const memory = { kvBytes: 0, pages, tokens, before: 0, stepBytes: 0, maxConcurrency: tokens / CONTEXT };
  const { tokenizer } = options;
  const space = makeSpace(settings, memory);
  return { settings, memory, space, device: new FakeDevice(), vocabSize: VOCABULARY, eosIds: [], tokenizer };
}
