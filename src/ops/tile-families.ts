import type { TileShaders } from "../gpu/tuning-file.ts";

/**
 * The families of tiles that `quire bench shaders --tune` chooses from. An op asks for its tile by
 *
 *   chooseTile(gpu.tuning?.matrix, rows, columns, its own choice, depth)
 *
 * and all tiles of a family give the same bits.
 */
export const TILE_FAMILIES = {
  /** Products by tensor cores. */
  matrix: { tiles: ["matrix-tile-"], shaders: ["matrix-", "matmul-subgroup-matrix"] },
  /** Products in f32 registers. */
  registers: {
    tiles: ["register-tile-"],
    shaders: ["matmul-registers", "matmul-tiles", "product", "activation", "storage-f32"],
  },
} as const satisfies Record<string, TileShaders>;

export type TileFamilyName = keyof typeof TILE_FAMILIES;
