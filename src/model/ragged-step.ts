import { check } from "../check.ts";
import { Arena } from "../gpu/arena.ts";
import type { Gpu } from "../gpu/gpu.ts";
import type { BufferRange, ReplayableRecording } from "../gpu/recording.ts";
import { prepareRun, submitRun } from "../gpu/replay.ts";
import { allocateLayers, freeLayers, type LayerKv, slotBytes } from "../kv/cache.ts";
import type { PageCopy } from "../kv/kv-space.ts";
import { Tensor } from "../tensor.ts";
import { batchProducts } from "./batch-products.ts";
import type { Gpt2 } from "./gpt2.ts";
import { type MemoryPlan, productForm } from "./memory-plan.ts";
import { type HostPages, PageMoves } from "./page-moves.ts";
import { type Bucket, RaggedArrays, RING_LAUNCHES } from "./ragged-arrays.ts";
import type { LaunchedStep, RaggedBatch, RaggedResult } from "./ragged-batch.ts";
import { bucketSizes, type RaggedBytes, raggedBytes, scratchPlan, seenRows } from "./ragged-footprint.ts";
import { readLogits } from "./ragged-logits.ts";
import {
  bucketSize,
  largestBucket,
  limitsOf,
  movedSlots,
  type RaggedOptions,
  type StepSizes,
} from "./ragged-options.ts";
import { recordRagged } from "./ragged-recording.ts";
import { SeenRows } from "./seen-rows.ts";

export type { RaggedOptions };

/** A step of one size, recorded when it is first launched. */
interface Recorded {
  readonly bucket: Bucket;
  recording?: ReplayableRecording;
  /** [samples, V] f32, until the next step runs; undefined where nothing is sampled. */
  logits?: BufferRange | undefined;
}

/** Rows are one dimension of most dispatches, which WebGPU ends at 65,535 workgroups. */
const MAX_TOKENS = 65_535;

/**
 * Steps of many sequences: each brings new tokens of any sequences, a prompt, a piece of one or a token, and takes samples after
 * any of them. A batch is padded to a bucket, whose launches were recorded once; what changes from step to step is one upload
 * of integer arrays. A token does not depend on who else is in the batch.
 *
 * It owns the keys and values; who has which slots is the caller's affair. Several launches may be in flight: they run in order.
 */
export class RaggedStep {
  /** Keys and values of each layer. */
  readonly layers: readonly LayerKv[];
  private readonly model: Gpt2;
  private readonly gpu: Gpu;
  private readonly options: RaggedOptions;
  private readonly plan: MemoryPlan;
  private readonly arena: Arena;
  readonly arrays: RaggedArrays;
  readonly seen: SeenRows;
  /** [RING_LAUNCHES, maxSequences] u32: sampled tokens. */
  readonly ring: Tensor;
  /** What a launch binds where it has nothing to bind. */
  readonly spare: Tensor;
  private readonly moves: PageMoves;
  private readonly recorded = new Map<number, Recorded>();
  private launches = 0;

  /** Throws OutOfMemory, with nothing left behind. */
  static async open(model: Gpt2, options: RaggedOptions): Promise<RaggedStep> {
    const step = new RaggedStep(model, options);
    try {
      // A buffer that the device had no room for is known only now.
      await model.gpu.settle();
      return step;
    } catch (error) {
      step.free();
      throw error;
    }
  }

  /**
   * Bytes that steps take beside the weights and the slots, where at most `logitsRows` samples of a step want their logits and
   * pages of `swapTokens` slots are on their way to the host at once.
   */
  static footprint(model: Gpt2, options: StepSizes, logitsRows = 8, swapTokens = 0): RaggedBytes {
    const shape = model.cacheShape(options.kvDtype);
    const limits = limitsOf(model, options, 0);
    const form = productForm(batchProducts(model));
    return raggedBytes(model.config, shape, largestBucket(options), form, limits, { logitsRows, swapTokens });
  }

  private constructor(model: Gpt2, options: RaggedOptions) {
    const { gpu, config } = model;
    const { layout, slots, maxSequences, maxBatchedTokens, maxSeqLen } = options;
    check(
      maxBatchedTokens <= MAX_TOKENS && maxSeqLen <= config.contextLength,
      () =>
        `ragged step: ${maxBatchedTokens} tokens a step, ${maxSeqLen} a sequence; at most ${MAX_TOKENS} and ${config.contextLength}`,
    );
    this.model = model;
    this.gpu = gpu;
    this.options = options;
    const freeAll: (() => void)[] = [];
    const table = (label: string, shape: readonly number[]) => {
      const tensor = Tensor.empty(gpu, shape, { dtype: "u32", purpose: "tables", label });
      freeAll.push(() => tensor.free());
      return tensor;
    };
    try {
      const largest = largestBucket(options);
      const pageBytes = movedSlots(options) * slotBytes(model.cacheShape(options.kvDtype));
      this.plan = scratchPlan(config, largest, productForm(batchProducts(model)), pageBytes);
      this.arena = new Arena(gpu.memory, this.plan.sizes, "ragged step");
      freeAll.push(() => this.arena.free());
      this.arrays = new RaggedArrays(gpu, largest, limitsOf(model, options, slots));
      freeAll.push(() => this.arrays.free());
      this.seen = new SeenRows(gpu, seenRows(maxSequences), config.vocabSize);
      freeAll.push(() => this.seen.free());
      this.ring = table("sampled tokens", [RING_LAUNCHES, maxSequences]);
      this.spare = table("spare", [64]);
      const all = layout === "strips" ? slots + 1 : slots;
      this.layers = allocateLayers(gpu, model.cacheShape(options.kvDtype), all, "ragged cache");
      this.moves = new PageMoves(gpu, this.layers, movedSlots(options), this.spare, this.arena);
    } catch (error) {
      for (const free of freeAll) free();
      throw error;
    }
  }

  /** Give everything back. Launches in flight are waited for by their own results. */
  free(): void {
    for (const { recording } of this.recorded.values()) recording?.free();
    this.recorded.clear();
    freeLayers(this.layers);
    this.ring.free();
    this.spare.free();
    this.seen.free();
    this.arrays.free();
    this.arena.free();
  }

  /** A row of tokens seen, for samples with a repetition penalty: `tokens` and what is sampled with it from now on. */
  openSeen(tokens: readonly number[]): number {
    return this.seen.open(tokens);
  }

  closeSeen(row: number): void {
    this.seen.close(row);
  }

  /** Copy pages within the cache, before steps launched from now on and after those launched before. */
  copyPages(copies: readonly PageCopy[]): void {
    if (copies.length > 0) this.moves.copy(copies);
  }

  /**
   * Bring pages to the host. Steps launched after this has returned its promise may overwrite them. Rejects with OutOfMemory where
   * there is no room for the staging buffers, and nothing is lost then but the copy.
   */
  readPages(pages: readonly number[]): Promise<HostPages> {
    return this.moves.read(pages);
  }

  /** Put what readPages brought into other pages, before steps launched from now on. */
  writePages(pages: readonly number[], host: HostPages): void {
    this.moves.write(pages, host);
  }

  /** Recordings made so far. */
  get recordings(): number {
    return this.recorded.size;
  }

  /**
   * Submit a step. Throws on a batch that cannot be, with nothing submitted; whatever else goes wrong, OutOfMemory and DeviceLost
   * too, is told by the result.
   */
  launch(batch: RaggedBatch): LaunchedStep {
    const { launches: launch } = this;
    const { maxSequences, maxBatchedTokens } = this.options;
    const { pieces, samples } = batch;
    let tokens = 0;
    for (const piece of pieces) tokens += piece.tokens.length;
    if (
      pieces.length === 0 ||
      Math.max(pieces.length, samples.length) > maxSequences ||
      tokens > maxBatchedTokens
    )
      check(
        false,
        `ragged step: ${tokens} tokens of ${pieces.length} sequences with ${samples.length} samples; at least one sequence, at most ${maxSequences} and as many samples, at most ${maxBatchedTokens} tokens`,
      );
    for (const { seen } of samples)
      if (seen !== undefined && !this.seen.isOpen(seen))
        check(false, `ragged step: the row ${seen} of tokens seen is not open`);
    const tiles = this.arrays.suitTiles(tokens, pieces.length);
    const step = this.bucketOf(tokens, samples.length, tiles);
    this.arrays.fill(batch, step.bucket, launch);
    this.launches++;
    const result = this.run(batch, step, launch);
    // A failure is told to whoever awaits the result; until then it must not count as unhandled.
    result.catch(() => {});
    return { launch, result };
  }

  /** Everything up to the first await happens at once, so steps are submitted in the order of their launches. */
  private async run({ pieces, samples }: RaggedBatch, step: Recorded, launch: number): Promise<RaggedResult> {
    const { gpu, arrays, ring } = this;
    step.recording ??= this.record(step);
    arrays.upload(step.bucket, pieces.length);
    // With no samples a word comes back all the same: it says that the step has run.
    const bytes = 4 * Math.max(1, samples.length);
    const run = prepareRun(gpu, step.recording, 1, ring, 4 * arrays.ringIndex(launch, 0), bytes);
    const tokens = submitRun(gpu, run);
    const rows = step.logits ? readLogits(gpu, step.logits, samples, this.model.config.vocabSize) : [];
    const [words, ...read] = await Promise.all([tokens, ...rows]);
    return {
      tokens: new Uint32Array(words).subarray(0, samples.length),
      logits: new Map(read.flat()),
    };
  }

  // ---- recordings ----------------------------------------------------------------------------------------------

  /** The smallest bucket for so many tokens and samples. */
  private bucketOf(tokens: number, samples: number, tiles: boolean): Recorded {
    const { maxSequences, maxBatchedTokens } = this.options;
    const rows = bucketSize(tokens, maxBatchedTokens);
    const padded = samples === 0 ? 0 : bucketSize(samples, maxSequences);
    const key = 2 * (rows * (maxSequences + 1) + padded) + Number(tiles);
    let step = this.recorded.get(key);
    if (!step) {
      step = { bucket: { rows, samples: padded, tiles } };
      this.recorded.set(key, step);
    }
    return step;
  }

  /** Record the step of a bucket. Throws OutOfMemory. */
  private record(step: Recorded): ReplayableRecording {
    const { gpu, model, arena, plan } = this;
    const { layout, pageSize } = this.options;
    const sizes = bucketSizes(model.config, plan, step.bucket, productForm(batchProducts(model)));
    const record = () =>
      gpu.record(() => {
        step.logits = recordRagged(model, this, layout, pageSize, step.bucket);
      });
    try {
      return arena.within(sizes, record, plan.bufferOf);
    } finally {
      gpu.stage = "";
    }
  }
}
