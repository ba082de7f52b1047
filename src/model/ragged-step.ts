import { check } from "../check.ts";
import { Arena } from "../gpu/arena.ts";
import type { Gpu } from "../gpu/gpu.ts";
import type { BufferRange, ReplayableRecording } from "../gpu/recording.ts";
import { prepareRun, submitRun } from "../gpu/replay.ts";
import { allocateLayers, freeLayers, type LayerKv } from "../kv/cache.ts";
import { rowStride, Tensor } from "../tensor.ts";
import type { Gpt2 } from "./gpt2.ts";
import { type ArrayLimits, type Bucket, RaggedArrays, RING_LAUNCHES } from "./ragged-arrays.ts";
import type { LaunchedStep, RaggedBatch, RaggedResult } from "./ragged-batch.ts";
import { type RaggedBytes, raggedBytes, scratchPlan, seenRows } from "./ragged-footprint.ts";
import { recordRagged } from "./ragged-recording.ts";
import { SeenRows } from "./seen-rows.ts";

export interface RaggedOptions {
  /** Where keys and values lie: in pages by a page table, of which page 0 is nobody's, or in strips. */
  readonly layout: "pages" | "strips";
  /** Slots of a page; 1 with strips. */
  readonly pageSize: number;
  /** Slots of the cache, the null page included. */
  readonly slots: number;
  readonly kvDtype: "f32" | "f16";
  /** Most sequences, and most samples, in a step. */
  readonly maxSequences: number;
  /** Most new tokens in a step. */
  readonly maxBatchedTokens: number;
  /** Most tokens of a sequence. */
  readonly maxSeqLen: number;
}

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
  private readonly arena: Arena;
  readonly arrays: RaggedArrays;
  readonly seen: SeenRows;
  /** [RING_LAUNCHES, maxSequences] u32: sampled tokens. */
  readonly ring: Tensor;
  /** What a launch binds where it has nothing to bind. */
  readonly spare: Tensor;
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

  /** Bytes that steps take beside the weights and the slots; at most `logitsRows` samples of a step want their logits. */
  static footprint(model: Gpt2, options: Omit<RaggedOptions, "slots">, logitsRows = 8): RaggedBytes {
    const shape = model.cacheShape(options.kvDtype);
    return raggedBytes(model.config, shape, largestBucket(options), limitsOf(model, options, 0), logitsRows);
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
      this.arena = new Arena(gpu.memory, scratchPlan(config, largest), "ragged step");
      freeAll.push(() => this.arena.free());
      this.arrays = new RaggedArrays(gpu, largest, limitsOf(model, options, slots));
      freeAll.push(() => this.arrays.free());
      this.seen = new SeenRows(gpu, seenRows(maxSequences), config.vocabSize);
      freeAll.push(() => this.seen.free());
      this.ring = table("sampled tokens", [RING_LAUNCHES, maxSequences]);
      this.spare = table("spare", [1]);
      const all = layout === "strips" ? slots + 1 : slots;
      this.layers = allocateLayers(gpu, model.cacheShape(options.kvDtype), all, "ragged cache");
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
    const step = this.bucketOf(tokens, samples.length);
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
    const rows = step.logits ? this.readLogits(step.logits, samples) : [];
    const [words, ...read] = await Promise.all([tokens, ...rows]);
    return {
      tokens: new Uint32Array(words).subarray(0, samples.length),
      logits: new Map(read.flat()),
    };
  }

  /** Logits of the samples that want them: a copy for each run of neighbours, submitted before another step can run. */
  private readLogits(range: BufferRange, samples: RaggedBatch["samples"]): Promise<LogitsRow[]>[] {
    const { vocabSize: V } = this.model.config;
    const stride = 4 * rowStride(V);
    const reads: Promise<LogitsRow[]>[] = [];
    for (let first = 0; first < samples.length; first++) {
      const start = first;
      while (samples[first]?.wantsLogits) first++;
      const count = first - start;
      if (count === 0) continue;
      const read = this.gpu.read(range, stride * start, stride * count);
      reads.push(
        read.then((bytes) =>
          Array.from({ length: count }, (_, i) => [start + i, new Float32Array(bytes, stride * i, V)]),
        ),
      );
    }
    return reads;
  }

  // ---- recordings ----------------------------------------------------------------------------------------------

  /** The smallest bucket for so many tokens and samples. */
  private bucketOf(tokens: number, samples: number): Recorded {
    const { maxSequences, maxBatchedTokens } = this.options;
    const rows = bucketSize(tokens, maxBatchedTokens);
    const padded = samples === 0 ? 0 : bucketSize(samples, maxSequences);
    const key = rows * (maxSequences + 1) + padded;
    let step = this.recorded.get(key);
    if (!step) {
      step = { bucket: { rows, samples: padded } };
      this.recorded.set(key, step);
    }
    return step;
  }

  /** Record the step of a bucket. Throws OutOfMemory. */
  private record(step: Recorded): ReplayableRecording {
    const { gpu, model, arena } = this;
    const { layout, pageSize } = this.options;
    try {
      return arena.within(scratchPlan(model.config, step.bucket), () =>
        gpu.record(() => {
          step.logits = recordRagged(model, this, layout, pageSize, step.bucket);
        }),
      );
    } finally {
      gpu.stage = "";
    }
  }
}

type LogitsRow = readonly [number, Float32Array];

function limitsOf({ config }: Gpt2, options: Omit<RaggedOptions, "slots">, slots: number): ArrayLimits {
  const { layout, pageSize, maxSequences, maxSeqLen } = options;
  const paged = layout === "pages";
  return {
    maxSequences,
    maxSeqLen,
    pageSize: paged ? pageSize : undefined,
    tableWidth: paged ? Math.ceil(maxSeqLen / pageSize) : 1,
    // Page 0 is nobody's; strips have no such page, so padding gets a slot behind them.
    paddingSlot: paged ? 0 : slots,
    vocabSize: config.vocabSize,
  };
}

function largestBucket({ maxBatchedTokens, maxSequences }: Omit<RaggedOptions, "slots">): Bucket {
  return { rows: maxBatchedTokens, samples: maxSequences };
}

/** 1, 2, 4, … up to `most`. */
function bucketSize(count: number, most: number): number {
  return Math.min(2 ** Math.ceil(Math.log2(count)), most);
}
