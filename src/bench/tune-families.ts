import { shadersNamed } from "../gpu/tuning-file.ts";
import { matmul, matrixMatmul } from "../ops/matmul.ts";
import { hasMatrixUnits } from "../ops/matrix-form.ts";
import { TILE_FAMILIES } from "../ops/tile-families.ts";
import type { TuneFamily } from "./tune.ts";

/** What `bench shaders --tune` measures: the ops that ask for a tile of src/ops/tile-families.ts. */
export const TUNE_FAMILIES: readonly TuneFamily[] = [
  {
    name: "matrix",
    tiles: shadersNamed(TILE_FAMILIES.matrix.tiles),
    x: "f16",
    w: "f16",
    missing: (gpu) => (hasMatrixUnits(gpu) ? undefined : "the device has no subgroup matrices for it"),
    run: (x, w, bias) => matrixMatmul(x, w, bias),
  },
  {
    name: "registers",
    tiles: shadersNamed(TILE_FAMILIES.registers.tiles),
    x: "f32",
    w: "f32",
    missing: ({ forms }) => (forms === "gpu" ? undefined : "a CPU takes the kernel without tiles"),
    run: (x, w, bias) => matmul(x, w, bias),
  },
];
