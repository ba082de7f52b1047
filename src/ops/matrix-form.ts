import type { Gpu } from "../gpu/gpu.ts";
import type { Tensor } from "../tensor.ts";

/** Sizes of shaders/matrix-tile-….wgsl. */
const TILES = [
  { part: "matrix-tile-128", rows: 128, columns: 128 },
  { part: "matrix-tile-64", rows: 64, columns: 64 },
] as const;

/** The smallest tile: it always does. */
const SMALL = { part: "matrix-tile-32", rows: 32, columns: 32 } as const;

/** Large tiles only where there are enough of them to fill a GPU. */
const MANY_TILES = 96;

/** What the stages take of workgroup memory at most, in bytes. */
const STAGE_BYTES = 37_888;

/** Products of a matrix unit: what shaders/matrix-product.wgsl asks for. */
const CONFIG = { componentType: "f16", resultComponentType: "f32", M: 16, N: 16, K: 16 } as const;

/**
 * Can products with w be computed by subgroup matrices here? They need f16 weights, subgroups of 32, and a device that
 * multiplies 16 × 16 × 16 halves into f32.
 */
export function hasMatrixForm(gpu: Gpu, w: Tensor): boolean {
  const { subgroupSize, subgroupMaxSize, subgroupMatrixConfigs = [] } = gpu.info;
  const keys = Object.keys(CONFIG) as (keyof typeof CONFIG)[];
  return (
    w.dtype === "f16" &&
    gpu.forms === "gpu" &&
    ["chromium-experimental-subgroup-matrix", "shader-f16", "subgroups"].every((f) => gpu.canUse(f)) &&
    subgroupSize === 32 &&
    subgroupMaxSize === 32 &&
    gpu.limits.maxComputeWorkgroupStorageSize >= STAGE_BYTES &&
    subgroupMatrixConfigs.some((config) => keys.every((key) => config[key] === CONFIG[key]))
  );
}

/** The tile for a product of [rows, columns], and workgroups [columns, rows]. Results do not depend on it. */
export function matrixTile(rows: number, columns: number) {
  const grid = (tile: { rows: number; columns: number }): [number, number] => [
    Math.ceil(columns / tile.columns),
    Math.ceil(rows / tile.rows),
  ];
  const suits = (tile: (typeof TILES)[number]) => {
    const [across, down] = grid(tile);
    return across * down >= MANY_TILES && rows > tile.rows / 2;
  };
  const tile = TILES.find(suits) ?? SMALL;
  return { part: tile.part, workgroups: grid(tile) };
}
