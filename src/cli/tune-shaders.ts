import { resolve } from "node:path";
import process from "node:process";
import { SHAPES, type ShapeName } from "../bench/shader-case.ts";
import { type TuneFamily, type TuneOptions, tuneFamilies, tuneGrid, tuningOf } from "../bench/tune.ts";
import { TUNE_FAMILIES } from "../bench/tune-families.ts";
import { tuneResults, tuneText } from "../bench/tune-results.ts";
import { writeResultsFile } from "../bench/write-results.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { writeTuning } from "../gpu/tuning-file.ts";
import { TILE_FAMILIES } from "../ops/tile-families.ts";
import { progressBar } from "./progress.ts";

/** What `bench shaders` was given and means for --tune. */
export interface TuneFlags {
  readonly repeat: number;
  readonly json?: boolean;
  readonly out?: string;
}

/** Squares, rows and sizes that a GPU is tuned for; a CPU that plays one gets few. */
const GRID = {
  "124m": { squares: [1024, 2048, 4096], mostRows: 4096, rotateBytes: 200e6, arenaBytes: 256 * 2 ** 20 },
  tiny: { squares: [], mostRows: 16, rotateBytes: 0, arenaBytes: 8 * 2 ** 20 },
} as const;

/**
 * `quire bench shaders --tune`: measure tiles, print the table, keep the choice for this adapter. Nothing is written where there is
 * nothing to choose.
 */
export async function tuneShaders(
  gpu: Gpu,
  shape: ShapeName,
  flags: TuneFlags,
  signal: AbortSignal,
  families: readonly TuneFamily[] = TUNE_FAMILIES,
): Promise<void> {
  const { squares, mostRows, ...sizes } = GRID[shape];
  const bar = progressBar("shapes");
  const options: TuneOptions = {
    shapes: tuneGrid(SHAPES[shape].channels, squares, mostRows),
    repeat: flags.repeat,
    ...sizes,
    signal,
    onProgress: bar.show,
  };
  const tuned = await tuneFamilies(gpu, families, options).finally(bar.stop);
  const tuning = tuningOf(tuned);
  const isEmpty = Object.keys(tuning).length === 0;
  // Print even when the cache cannot be written to.
  let file: string | null = null;
  let failure: unknown;
  try {
    if (!isEmpty) file = writeTuning(tuning, gpu.info, TILE_FAMILIES);
  } catch (error) {
    failure = error;
  }
  const results = tuneResults(gpu, shape, options, tuned, file);
  const json = `${JSON.stringify(results, null, 1)}\n`;
  process.stdout.write(flags.json ? json : `${tuneText(results)}\n`);
  if (flags.out !== undefined) {
    await writeResultsFile(flags.out, json);
    process.stderr.write(`quire: wrote ${resolve(flags.out)}\n`);
  }
  if (failure) throw failure;
}
