import type { Gpu } from "../gpu/gpu.ts";
import { chooseTile, type TileTable } from "../gpu/tuning.ts";
import type { Tensor } from "../tensor.ts";

/** Sizes of shaders/matrix-tile-….wgsl, and the sums of a subgroup, matrix-sums-….wgsl. */
interface Tile {
  readonly part: string;
  readonly sums: string;
  readonly rows: number;
  readonly columns: number;
  /** TFLOP/s where such tiles fill the GPU. */
  readonly rate: number;
  /** Fewer tiles than this are slower than their rate says: two subgroups alone do not keep a processor busy. */
  readonly least: number;
}

const tile = (rows: number, columns: number, sums: string, rate: number, least = 1): Tile => ({
  part: `matrix-tile-${rows}x${columns}`,
  sums: `matrix-sums-${sums}`,
  rows,
  columns,
  rate,
  least,
});

/** Processors of an H200, on which the rates were measured (docs/matmul.md); `bench shaders --tune` measures other GPUs. */
const PROCESSORS = 132;

/** The largest first. */
export const MATRIX_TILES: readonly Tile[] = [
  tile(128, 256, "4x4", 280),
  tile(128, 128, "4x2", 225),
  tile(64, 128, "4x4", 200, PROCESSORS),
  tile(64, 64, "2x2", 130),
  tile(32, 64, "1x1", 90),
  tile(32, 32, "1x1", 46),
];

/** What a tile takes of workgroup memory at most, in bytes. */
const STAGE_BYTES = 39_744;

/** Products of a matrix unit: what shaders/matrix-product.wgsl asks for. */
const CONFIG = { componentType: "f16", resultComponentType: "f32", M: 16, N: 16, K: 16 } as const;

/** Does this device multiply 16 × 16 × 16 halves into f32, in subgroups of 32? */
export function hasMatrixUnits(gpu: Gpu): boolean {
  const { subgroupSize, subgroupMaxSize, subgroupMatrixConfigs = [] } = gpu.info;
  const keys = Object.keys(CONFIG) as (keyof typeof CONFIG)[];
  return (
    gpu.forms === "gpu" &&
    ["chromium-experimental-subgroup-matrix", "shader-f16", "subgroups"].every((f) => gpu.canUse(f)) &&
    subgroupSize === 32 &&
    subgroupMaxSize === 32 &&
    gpu.limits.maxComputeWorkgroupStorageSize >= STAGE_BYTES &&
    subgroupMatrixConfigs.some((config) => keys.every((key) => config[key] === CONFIG[key]))
  );
}

/**
 * Can products with w be computed by subgroup matrices here? They need such units, f16 weights, and rows of whole octs (eight
 * halves): those of w [K, N] or, `transposed`, w [N, K], and those of x, which are K long.
 */
export function hasMatrixForm(gpu: Gpu, w: Tensor, transposed = false): boolean {
  const inOcts = w.cols % 8 === 0 && (transposed || w.rows % 8 === 0);
  return w.dtype === "f16" && inOcts && hasMatrixUnits(gpu);
}

/** Workgroups [columns, rows]. */
function grid({ rows, columns }: Tile, ofRows: number, ofColumns: number): [number, number] {
  return [Math.ceil(ofColumns / columns), Math.ceil(ofRows / rows)];
}

/** What a product of [rows, columns] takes, in no unit: rounds of a tile for each processor, by the tile's size and rate. */
function cost(tile: Tile, rows: number, columns: number): number {
  const [across, down] = grid(tile, rows, columns);
  if (across * down < tile.least) return Number.POSITIVE_INFINITY;
  return (Math.ceil((across * down) / PROCESSORS) * tile.rows * tile.columns) / tile.rate;
}

/**
 * The tile for a product of [rows, depth] and [depth, columns]: the one that was measured to be fastest there, if any, or the one
 * with the least cost. Its parts, and workgroups [columns, rows]. Results do not depend on it.
 */
export function matrixTile(rows: number, depth: number, columns: number, table?: TileTable) {
  const choice = MATRIX_TILES.reduce((best, t) =>
    cost(t, rows, columns) < cost(best, rows, columns) ? t : best,
  );
  const part = chooseTile(table, rows, columns, choice.part, depth);
  const found = MATRIX_TILES.find((t) => t.part === part)!;
  return { parts: [found.part, found.sums], workgroups: grid(found, rows, columns) };
}
