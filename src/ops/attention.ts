import { check } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import type { Work } from "../gpu/recording.ts";
import { ELEMENT_BYTES, shapeText, Tensor } from "../tensor.ts";
import type { TileSizes } from "./attention-tiles.ts";
import { checkCache } from "./kv-write.ts";
import { storagePart } from "./storage.ts";

const kernel = new Kernel("attention");

/** The sequence of a row of padding. */
export const PADDING = 0xffffffff;

/** The largest head that the attention kernels can hold: MAX_HEAD_QUADS · 4 channels. */
export const MAX_HEAD_SIZE = 128;

/**
 * The parts of the attention kernels that suit keys k and their Gpu: how k is stored and read, few threads a workgroup or one
 * a position of a chunk, and how these agree on the largest score. Results do not depend on it.
 */
export function attentionForm(k: Tensor): string[] {
  const stored = storagePart(k);
  if (k.gpu.forms === "software") return [stored, "attend-narrow"];
  return [
    stored,
    "attend-wide",
    k.dtype === "f16" && k.stride % 8 === 0 ? "attend-keys-pairs" : "attend-keys",
    k.gpu.canUse("subgroups") ? "attend-max-subgroup" : "attend-max",
  ];
}

/** Which rows of a batch belong to which sequence, and how long each sequence is; the same for every layer of a step. */
export interface AttentionBatch {
  /** [S] u32: tokens of each sequence, the new ones included. */
  readonly contextLens: Tensor;
  /** [S + 1] u32: the new tokens of sequence s are rows queryStarts[s] … queryStarts[s + 1] - 1. */
  readonly queryStarts: Tensor;
  /** [T] u32: the sequence of each row; PADDING for a row that nobody wants, whose result is undefined. */
  readonly sequenceOf: Tensor;
  /**
   * [n, 2] u32, for attention by tiles of rows: the sequence and the first row of each tile, as `attentionTiles` lists them;
   * PADDING where there is no tile. Each row but padding is in one of them.
   */
  readonly tiles?: Tensor;
  /** Rows of a full tile; there where `tiles` is. */
  readonly tileRows?: number;
  /** Which tiles there may be, for forms that have launches for small and for large ones. Default: both. */
  readonly tileSizes?: TileSizes;
  /** For the profile: keys that all sequences have together, and pairs of a row and a key that it sees. */
  readonly work?: { readonly keys: number; readonly pairs: number };
}

/** Everything that dense and paged attention have in common: all but where a position lies. */
export function attentionArguments(
  op: string,
  qkv: Tensor,
  k: Tensor,
  v: Tensor,
  batch: AttentionBatch,
  scale: number,
  dtype: "f32" | "f16" = "f32",
) {
  const [, heads, headSize] = k.shape as [number, number, number];
  checkCache(op, k, v);
  check(
    qkv.cols === 3 * heads * headSize || qkv.cols === heads * headSize,
    () =>
      `${op}: qkv is ${shapeText(qkv.shape)} but the cache is ${shapeText(k.shape)}; qkv needs 3 · H · D columns, or H · D of queries alone`,
  );
  check(headSize <= MAX_HEAD_SIZE, () => `${op}: a head of ${headSize} channels; at most ${MAX_HEAD_SIZE}`);
  check(
    batch.sequenceOf.cols === qkv.rows && batch.queryStarts.cols === batch.contextLens.cols + 1,
    () => `${op}: qkv is ${shapeText(qkv.shape)} but the batch has ${batch.sequenceOf.cols} rows`,
  );
  const y = Tensor.empty(qkv.gpu, [qkv.rows, heads * headSize], { dtype, label: op });
  const { work } = batch;
  const { contextLens: context_lens, queryStarts: query_starts, sequenceOf: sequence_of } = batch;
  return {
    y,
    buffers: { qkv, k, v, context_lens, query_starts, sequence_of, y },
    params: {
      head_size: headSize,
      qkv_stride: qkv.stride,
      y_stride: y.stride,
      scale,
    },
    workgroups: [heads, qkv.rows],
    options: {
      parts: attentionForm(k),
      constants: { HEADS: heads, HEAD_QUADS: k.stride / 4 },
      work: work && (() => attentionWork(qkv.rows, k, work.keys, work.pairs)),
    },
  };
}

/**
 * What attention of `rows` queries moves and computes: queries and results in f32, `keys` keys and values once, and for
 * each of `pairs` pairs of a query and a key it sees a dot product and a weighted sum.
 */
export function attentionWork(rows: number, k: Tensor, keys: number, pairs: number): Work {
  const [, heads, headSize] = k.shape as [number, number, number];
  return {
    shape: `${rows}×${keys}×${heads}×${headSize}`,
    bytes: 2 * 4 * rows * heads * headSize + 2 * keys * heads * headSize * ELEMENT_BYTES[k.dtype],
    flops: 4 * pairs * heads * headSize,
  };
}

/**
 * Causal attention of the queries in qkv [T, 3 · C] f32, or [T, C] of queries alone, over contiguous keys and values; a new
 * tensor [T, C] f32.
 *
 * k and v are [slots, H, D], f32 or f16; the positions of sequence s are the slots from stripStarts[s] on ([S] u32).
 * Each row sees its own sequence up to itself. Scores are scaled by `scale`, usually 1/√D. The softmax is online, in f32
 * (Milakov and Gimelshein, 2018).
 */
export function attention(
  qkv: Tensor,
  k: Tensor,
  v: Tensor,
  stripStarts: Tensor,
  batch: AttentionBatch,
  scale: number,
): Tensor {
  const { y, buffers, params, workgroups, options } = attentionArguments(
    "attention",
    qkv,
    k,
    v,
    batch,
    scale,
  );
  kernel.run(qkv.gpu, { ...buffers, strip_starts: stripStarts }, params, workgroups, options);
  return y;
}
