import { check } from "../check.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { Kernel } from "../gpu/kernel.ts";
import { shapeText, type Tensor } from "../tensor.ts";
import { type AttentionBatch, attention, attentionArguments } from "./attention.ts";
import type { SlotLookup } from "./decode-attention.ts";
import { hasMatrixUnits } from "./matrix-form.ts";
import { pagedAttention } from "./paged-attention.ts";
import { storagePart } from "./storage.ts";

const kernel = new Kernel("flash-attention");
const matrix = new Kernel("flash-attention-subgroup-matrix");

/**
 * How the kernel cuts its work: rows of a workgroup, positions that are in workgroup memory at a time, and threads that share
 * four rows.
 */
export interface FlashTile {
  readonly rows: number;
  readonly keys: number;
  readonly lanes: number;
}

/** The best one first; those after it need less memory, or are there to be measured. */
export const FLASH_TILES: readonly FlashTile[] = [
  { rows: 32, keys: 32, lanes: 16 },
  { rows: 32, keys: 64, lanes: 16 },
  { rows: 32, keys: 32, lanes: 8 },
  { rows: 16, keys: 32, lanes: 16 },
  { rows: 16, keys: 16, lanes: 8 },
  { rows: 8, keys: 16, lanes: 16 },
];

/** Bytes of workgroup memory for heads of `headQuads` vec4s, as shaders/flash-stage.wgsl and flash-rows.wgsl declare it. */
export function flashBytes({ rows, keys }: Omit<FlashTile, "lanes">, headQuads: number): number {
  const stride = headQuads | 1;
  const weights = (rows / 4) * (8 * 17 + 4);
  return 16 * (rows * stride + keys * stride + weights) + 4 * (2 * 128 + rows);
}

/** Keys, or what is known of them before there are any: stride is the channels of a head, in whole vec4s. */
type Heads = Pick<Tensor, "gpu" | "stride">;

/**
 * The tile for keys k on their device; undefined where attention row by row is better. On a CPU that plays GPU it is: 145 ms
 * against 231 for a prompt of 512 tokens with 3 heads of 64, and 12 against 18 for one of 128.
 */
export function flashTile(k: Heads): FlashTile | undefined {
  return k.gpu.forms === "software" ? undefined : firstFit(k);
}

/** The first of FLASH_TILES that workgroup memory has room for, if any. */
export function firstFit(k: Heads): FlashTile | undefined {
  return FLASH_TILES.find((tile) => fits(tile, k));
}

function fits(tile: FlashTile, k: Heads): boolean {
  return flashBytes(tile, k.stride / 4) <= k.gpu.limits.maxComputeWorkgroupStorageSize;
}

/** Rows of a tile of flash-attention-subgroup-matrix.wgsl. */
export const MATRIX_TILE_ROWS = 64;
/** Its head size: that of every GPT-2. */
const MATRIX_HEAD_SIZE = 64;
/** What it takes of workgroup memory, in bytes. */
const MATRIX_BYTES = 48_912;

/** Can `matrixFlashAttention` attend to keys and values of this shape here? */
export function hasMatrixAttention(
  gpu: Gpu,
  { headSize, dtype }: { readonly headSize: number; readonly dtype: string },
): boolean {
  return (
    headSize === MATRIX_HEAD_SIZE &&
    dtype === "f16" &&
    hasMatrixUnits(gpu) &&
    gpu.limits.maxComputeWorkgroupStorageSize >= MATRIX_BYTES
  );
}

/**
 * Causal attention of the queries in qkv [T, 3 · C] f32, or [T, C] of queries alone, by tiles of neighbouring rows; a new tensor
 * [T, C] f32, with the bits of `attention` and `pagedAttention`.
 *
 * k and v are [slots, H, D], f32 or f16; `slots` says where positions lie. A workgroup has a tile of batch.tiles, and loads every
 * key and value once for all of its rows. Where the batch has no tiles, or flashTile has none for k, it is attention row by
 * row. Each row sees its own sequence up to itself. Scores are scaled by `scale`, usually 1/√D. (Dao et al., FlashAttention, 2022.)
 */
export function flashAttention(
  qkv: Tensor,
  k: Tensor,
  v: Tensor,
  slots: SlotLookup,
  batch: AttentionBatch,
  scale: number,
): Tensor {
  const { tiles, tileRows } = batch;
  const best = flashTile(k);
  const tile = best && tileRows && [best, ...FLASH_TILES].find((t) => t.rows === tileRows && fits(t, k));
  if (!tiles || !tile) return attentionByRow(qkv, k, v, slots, batch, scale);
  return flashAttentionWith(tile, qkv, k, v, slots, batch, scale);
}

/** `flashAttention` with a tile of the caller's choice, whose rows are batch.tileRows: for tests and measurements. */
export function flashAttentionWith(
  tile: FlashTile,
  qkv: Tensor,
  k: Tensor,
  v: Tensor,
  slots: SlotLookup,
  batch: AttentionBatch,
  scale: number,
): Tensor {
  const op = "flash-attention";
  check(
    batch.tileRows === tile.rows,
    () => `${op}: the batch has tiles of ${batch.tileRows} rows but the kernel's have ${tile.rows}`,
  );
  const { y, buffers, params, workgroups, options } = flashArguments(op, qkv, k, v, slots, batch, scale);
  kernel.run(qkv.gpu, buffers, params, workgroups, {
    parts: [storagePart(k), slots.part],
    constants: { ...options.constants, TILE_ROWS: tile.rows, KEY_TILE: tile.keys, LANES: tile.lanes },
    work: options.work,
  });
  return y;
}

/**
 * The same by subgroup matrices, see hasMatrixAttention: queries [T, C] f16, k and v [slots, H, 64] f16, batch.tiles of
 * MATRIX_TILE_ROWS rows; a new tensor [T, C] f16. Scores and sums are f32, weights are rounded to halves.
 *
 * It has an order of sums of its own: a row has other last bits than `attention` gives it, but the same ones alone, in a
 * prompt and in any piece of one.
 */
export function matrixFlashAttention(
  queries: Tensor,
  k: Tensor,
  v: Tensor,
  slots: SlotLookup,
  batch: AttentionBatch,
  scale: number,
): Tensor {
  const op = "flash-attention";
  const [, heads, headSize] = k.shape as [number, number, number];
  check(
    headSize === MATRIX_HEAD_SIZE && queries.cols === heads * headSize && batch.tileRows === MATRIX_TILE_ROWS,
    () =>
      `${op}: queries are ${shapeText(queries.shape)}, the cache ${shapeText(k.shape)}, tiles have ${batch.tileRows} rows; wanted H · D queries, heads of ${MATRIX_HEAD_SIZE} and tiles of ${MATRIX_TILE_ROWS}`,
  );
  const { y, buffers, params, workgroups, options } = flashArguments(
    op,
    queries,
    k,
    v,
    slots,
    batch,
    scale,
    "f16",
  );
  const { head_size: _, ...used } = params;
  const { HEAD_QUADS: __, ...constants } = options.constants;
  const { few, many } = batch.tileSizes ?? { few: true, many: true };
  const forms = [...(many ? ["flash-tile-64"] : []), ...(few ? ["flash-tile-16"] : [])];
  // The work is told once: a launch leaves the tiles of the other form alone.
  forms.forEach((form, i) => {
    const work = i === 0 ? options.work : undefined;
    matrix.run(queries.gpu, buffers, used, workgroups, { parts: [form, slots.part], constants, work });
  });
  return y;
}

/** Everything that kernels of attention by tiles have in common; throws on what does not fit together. */
export function flashArguments(
  op: string,
  qkv: Tensor,
  k: Tensor,
  v: Tensor,
  slots: SlotLookup,
  batch: AttentionBatch,
  scale: number,
  dtype: "f32" | "f16" = "f32",
) {
  const { tiles, contextLens } = batch;
  check(
    tiles && tiles.cols === 2,
    () => `${op}: tiles are ${tiles ? shapeText(tiles.shape) : "missing"}, wanted [n, 2]`,
  );
  const isPaged = slots.part === "slots-paged";
  check(
    (isPaged ? slots.table.rows : slots.table.rows * slots.table.cols) === contextLens.cols,
    () => `${op}: the table is ${shapeText(slots.table.shape)} but there are ${contextLens.cols} sequences`,
  );
  const { y, buffers, params, workgroups, options } = attentionArguments(op, qkv, k, v, batch, scale, dtype);
  const { sequence_of: _, ...used } = buffers;
  return {
    y,
    params,
    buffers: { ...used, tiles, slot_table: slots.table },
    workgroups: [workgroups[0]!, tiles.rows],
    options: {
      constants: {
        ...options.constants,
        ...(isPaged ? { TABLE_WIDTH: slots.table.cols, PAGE_SIZE: slots.pageSize } : {}),
      },
      work: options.work,
    },
  };
}

function attentionByRow(
  qkv: Tensor,
  k: Tensor,
  v: Tensor,
  { part, table, pageSize }: SlotLookup,
  batch: AttentionBatch,
  scale: number,
): Tensor {
  return part === "slots-paged"
    ? pagedAttention(qkv, k, v, table, pageSize, batch, scale)
    : attention(qkv, k, v, table, batch, scale);
}
