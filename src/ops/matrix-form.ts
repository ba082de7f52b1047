import type { Gpu } from "../gpu/gpu.ts";
import { chooseTile, type TileTable } from "../gpu/tuning.ts";
import type { Tensor } from "../tensor.ts";

/** Sizes of shaders/matrix-tile-….wgsl, and the sums of a subgroup, matrix-sums-….wgsl. */
interface Tile {
  readonly part: string;
  readonly sums: string;
  readonly rows: number;
  readonly columns: number;
  /** So many of them fill a GPU; where a product has fewer, smaller tiles are faster. */
  readonly many: number;
  /** The least depth for which it is worth its size. */
  readonly depth?: number;
}

const tile = (rows: number, columns: number, sums: string, many: number, depth = 0): Tile => ({
  part: `matrix-tile-${rows}x${columns}`,
  sums: `matrix-sums-${sums}`,
  rows,
  columns,
  many,
  depth,
});

/**
 * From the largest on; the last always does. What is "many" was measured on an H200, with 132 processors (docs/matmul.md):
 * other numbers only cost time, and `bench shaders --tune` finds those of another GPU.
 */
export const MATRIX_TILES: readonly Tile[] = [
  tile(128, 256, "4x4", 500),
  tile(128, 128, "4x2", 96, 2048),
  tile(64, 128, "4x4", 132),
  tile(64, 64, "2x2", 96),
  tile(32, 64, "1x1", 64),
  tile(32, 32, "1x1", 0),
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

/**
 * The tile for a product of [rows, depth] and [depth, columns]: the one that was measured to be fastest there, if any, or our own
 * choice. Its parts, and workgroups [columns, rows]. Results do not depend on it.
 */
export function matrixTile(rows: number, depth: number, columns: number, table?: TileTable) {
  const grid = (t: Tile): [number, number] => [Math.ceil(columns / t.columns), Math.ceil(rows / t.rows)];
  const suits = (t: Tile) => {
    const [across, down] = grid(t);
    return across * down >= t.many && rows > t.rows / 2 && depth >= (t.depth ?? 0);
  };
  const choice = MATRIX_TILES.find(suits) ?? MATRIX_TILES.at(-1)!;
  const part = chooseTile(table, rows, columns, choice.part, depth);
  const found = MATRIX_TILES.find((t) => t.part === part)!;
  return { parts: [found.part, found.sums], workgroups: grid(found) };
}
