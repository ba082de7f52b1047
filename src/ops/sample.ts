import { check } from "../check.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { Kernel } from "../gpu/kernel.ts";
import type { BufferRange } from "../gpu/recording.ts";
import { shapeText, type Tensor } from "../tensor.ts";
import type { Bests } from "./norm-head.ts";

const kernel = new Kernel("sample");

/** Rows of the step arrays: token_ids, positions, slot_mapping, context_lens, generated, ring. */
const STEP_ROWS = 6;
/** Words of a row of settings. */
const SETTINGS = 8;
/** Words of a row for sampleListed. */
export const LISTED_SETTINGS = 12;
/** What the kernel writes for a row that has NaN, Infinity or no finite logit: there is no token to choose. */
export const NO_TOKEN = 0xffffffff;

/**
 * Threads of a workgroup, which the results do not depend on: many to have loads in flight, few where barriers are dear. A
 * greedy row with `bests` needs no more than the 128 of shaders/sample-best.wgsl.
 */
const THREADS = { gpu: 1024, software: 8 };

/** How the next token is chosen: the fields of the CPU sampler's options, with the same ranges; undefined is off. */
export interface SampleSettings {
  readonly repetitionPenalty?: number;
  readonly temperature: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly seed: number | bigint;
}

/** Where the slots of sequences lie: page tables if pageSize is given, else strips. */
export interface SampleSlots {
  /** [S] u32, the first slot of each strip; or [S, width] u32, the pages of each sequence. */
  readonly table: Tensor;
  /** Slots in a page. */
  readonly pageSize?: number;
}

export interface SampleArguments {
  /** [S, V] f32. */
  readonly logits: Tensor;
  /** What `normHead` says of these logits: rows without a repetition penalty are then hardly looked at. */
  readonly bests?: Bests | undefined;
  /** [S, 8] u32, rows from `settingsWords`. */
  readonly settings: Tensor;
  /** [S, ceil(V / 32)] u32: bit id mod 32 of word id / 32 for ids in the prompt and those generated. */
  readonly seen: Tensor;
  readonly slots: SampleSlots;
  /** [6, at least S] u32: token_ids, positions, slot_mapping, context_lens, generated, ring. */
  readonly step: Tensor;
  /** [ring, S] u32: where tokens go, row after row and round again. */
  readonly tokens: Tensor;
  /** Positions that have a slot; a token at a later one gets slot 0. */
  readonly maxPositions: number;
  /** Every row's temperature is 0, now and whenever the launch is run again: a smaller kernel. Default false. */
  readonly greedy?: boolean;
}

/**
 * Choose the next token of each sequence as the CPU sampler does, in f32, and advance `step`, `tokens` and `seen`.
 *
 * One launch. The token goes to tokens[ring mod rows, s], NO_TOKEN where there is none to choose: the host throws then, and
 * the step arrays have token 0, so that what is recorded may go on. The token's position, slot and context length are
 * those of the step that computes it. Tokens differ from the CPU sampler's only where the random number lies
 * within some 1e-6 of the edge of a token's share of the distribution, or a filter decides between scores whose float64
 * values differ by f32 rounding. The same input gives the same tokens, whatever the number of threads.
 */
export function sample({
  logits,
  bests,
  settings,
  seen,
  slots,
  step,
  tokens,
  maxPositions,
  greedy = false,
}: SampleArguments): void {
  const { rows, cols, gpu } = logits;
  const { table, pageSize } = slots;
  const seenWords = Math.ceil(cols / 32);
  const want = wantFor(logits);
  want("settings", settings, settings.rows === rows && settings.cols === SETTINGS, `[${rows}, ${SETTINGS}]`);
  want("seen", seen, seen.rows === rows && seen.cols === seenWords, `[${rows}, ${seenWords}]`);
  want(
    "step",
    step,
    step.rows === STEP_ROWS && step.cols >= rows,
    `[${STEP_ROWS}, n] with n of at least ${rows}`,
  );
  want("tokens", tokens, tokens.cols === rows, `[ring, ${rows}]`);
  if (pageSize === undefined) want("the slot table", table, table.rows * table.cols === rows, `[${rows}]`);
  else {
    check(
      Number.isInteger(pageSize) && pageSize > 0,
      () => `sample: a page of ${pageSize} slots; wanted a positive integer`,
    );
    want("the page table", table, table.rows === rows, `[${rows}, pages]`);
    check(
      maxPositions <= table.cols * pageSize,
      () => `sample: ${maxPositions} positions do not fit into ${table.cols} pages of ${pageSize} slots`,
    );
  }
  if (bests)
    want(
      "bests",
      bests.table,
      bests.table.rows === rows && bests.table.cols % 2 === 0,
      `[${rows}, 2 · shares]`,
    );
  // Four neighbouring logits are loaded at once, so they must be of one share.
  const bestQuads = bests?.stripe === undefined || bests.stripe % 4 > 0 ? 0 : bests.stripe / 4;
  const params = {
    ...rowParams(logits),
    token_stride: rows,
    step_stride: step.cols,
    ring_size: tokens.rows,
    max_positions: maxPositions,
  };
  const buffers = {
    logits,
    settings,
    slot_table: table,
    bests: bests?.table ?? settings,
    seen,
    step,
    tokens,
  };
  kernel.run(gpu, buffers, params, [rows], {
    parts: [pageSize === undefined ? "slots-contiguous" : "slots-paged"],
    constants: {
      WORKGROUP_SIZE: threads(gpu),
      GREEDY: greedy ? 1 : 0,
      ...(bests ? { BESTS: bests.table.cols / 2, BEST_QUADS: bestQuads } : {}),
      ...(pageSize === undefined ? {} : { TABLE_WIDTH: table.cols, PAGE_SIZE: pageSize }),
    },
    // At least, which with `bests` is what a greedy row needs.
    work: () => ({
      shape: `${rows}×${cols}`,
      bytes: 4 * rows * (bests?.table.cols ?? cols),
      flops: rows * (bests?.table.cols ?? cols),
    }),
  });
}

export interface ListedSampleArguments {
  /** [S, V] f32. */
  readonly logits: Tensor;
  /** [S, 12] u32, rows from `settingsWords` and `setListed`. */
  readonly settings: Tensor;
  /** [rows, ceil(V / 32)] u32: tokens seen, a row for whoever has a repetition penalty. */
  readonly seen: Tensor;
  /** u32: where the tokens go. */
  readonly tokens: Tensor;
  /** Any memory that the launch does not use otherwise; it is not written. */
  readonly spare: BufferRange;
}

/**
 * Like `sample`, for rows that say themselves what they need to know of their sequence and where their token goes: one
 * launch, in which every row is another sequence each time. Rows of padding are left out.
 */
export function sampleListed({ logits, settings, seen, tokens, spare }: ListedSampleArguments): void {
  const { rows, cols, gpu } = logits;
  const want = wantFor(logits);
  want(
    "settings",
    settings,
    settings.rows === rows && settings.cols === LISTED_SETTINGS,
    `[${rows}, ${LISTED_SETTINGS}]`,
  );
  want("seen", seen, seen.cols === Math.ceil(cols / 32), `[n, ${Math.ceil(cols / 32)}]`);
  const params = { ...rowParams(logits), token_stride: 0, step_stride: 0, ring_size: 1, max_positions: 0 };
  const buffers = { logits, settings, slot_table: settings, bests: settings, seen, step: spare, tokens };
  kernel.run(gpu, buffers, params, [rows], {
    constants: { WORKGROUP_SIZE: threads(gpu), ADVANCES: 0, SETTINGS: LISTED_SETTINGS },
    work: () => ({ shape: `${rows}×${cols}`, bytes: 4 * rows * cols, flops: rows * cols }),
  });
}

function wantFor(logits: Tensor) {
  return (name: string, tensor: Tensor, fits: boolean, shape: string) =>
    check(
      fits,
      () =>
        `sample: ${name} is ${shapeText(tensor.shape)} but logits are ${shapeText(logits.shape)}; wanted ${shape}`,
    );
}

function rowParams({ cols, stride }: Tensor) {
  return {
    cols,
    quads: Math.ceil(cols / 4),
    row_quads: stride / 4,
    seen_words: Math.ceil(cols / 32),
  };
}

function threads(gpu: Gpu): number {
  const { maxComputeInvocationsPerWorkgroup: most, maxComputeWorkgroupSizeX: mostX } = gpu.limits;
  return Math.min(THREADS[gpu.forms], most, mostX);
}

/** What f32 holds with room for products; beyond it results no longer change, and a temperature of 0 would be greedy. */
const SMALLEST = 1e-30;
const LARGEST = 1e30;
/** Shares of the mass are kept in units of 2^-31. */
const MIN_TOP_P = 2 ** -30;

const clamp = (value: number, low: number, high: number) => Math.min(Math.max(value, low), high);

/**
 * A row of the kernel's settings, 8 words: temperature, topK, topP, minP, repetitionPenalty, the seed's two words (low
 * first), sequenceId; fractions as f32 bits.
 *
 * The options must be valid, see validateSampling of generate/sampler.ts. A temperature above 0 and the penalty are clamped to
 * 1e-30 … 1e30. `sequenceId` is u32: which sequence of a request list.
 */
export function settingsWords(options: SampleSettings, sequenceId: number): Uint32Array {
  const { temperature, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1 } = options;
  check(
    sequenceId === sequenceId >>> 0,
    () => `sample: sequence id ${sequenceId}; wanted an integer from 0 to 2^32 - 1`,
  );
  const seed = BigInt(options.seed);
  const words = new Uint32Array(SETTINGS);
  const floats = new Float32Array(words.buffer);
  floats[0] = temperature === 0 ? 0 : clamp(temperature, SMALLEST, LARGEST);
  words[1] = Math.min(topK, 2 ** 32 - 1);
  floats[2] = Math.max(topP, MIN_TOP_P);
  floats[3] = minP;
  floats[4] = clamp(repetitionPenalty, SMALLEST, LARGEST);
  words[5] = Number(seed & 0xffffffffn);
  words[6] = Number(seed >> 32n);
  words[7] = sequenceId;
  return words;
}

/**
 * Put what sampleListed wants behind a row's settingsWords into `words`, whose row begins at `row`: tokens generated so far, the
 * index of the token in `tokens`, and the row of `seen`, NO_TOKEN where there is no penalty. A row of padding has NO_TOKEN for
 * its index.
 */
export function setListed(
  words: Uint32Array,
  row: number,
  generated: number,
  index: number,
  seenRow = NO_TOKEN,
): void {
  words[row + SETTINGS] = generated;
  words[row + SETTINGS + 1] = index;
  words[row + SETTINGS + 2] = seenRow;
}
