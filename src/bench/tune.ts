import type { Gpu } from "../gpu/gpu.ts";
import { OWN_CHOICE, type TilePoint, type Tuning } from "../gpu/tuning.ts";
import type { Tensor } from "../tensor.ts";
import { ShaderInputs } from "./shader-inputs.ts";
import { untilWarm } from "./throughput.ts";
import { timeKernel } from "./time-kernel.ts";

// Which tile is fastest: each of a family at a grid of shapes, on the op's own path, which asks gpu.tuning for its tile.

/** A tile must be so much faster than the op's own choice to take its place: less is the noise of a measurement. */
const LEAST_GAIN = 0.03;

/** Sets of inputs of a small product at most: more would only cost the host time. */
const MOST_SETS = 64;

/** A product [rows, depth] · [depth, columns]. */
export interface TuneShape {
  readonly rows: number;
  readonly depth: number;
  readonly columns: number;
}

/** Tiles between which an op chooses by `chooseTile(gpu.tuning?.[name], rows, columns, …)`; all give the same bits. */
export interface TuneFamily {
  readonly name: string;
  /** All of them run on every device that has the family. */
  readonly tiles: readonly string[];
  /** How x and w are stored. */
  readonly x: "f32" | "f16";
  readonly w: "f32" | "f16";
  /** Why the device has no kernel for these tiles; undefined where it has. */
  missing(gpu: Gpu): string | undefined;
  /** The product by the op, a new tensor. */
  run(x: Tensor, w: Tensor, bias: Tensor): Tensor;
}

/** Seconds of a product with each tile. OWN_CHOICE is what the op does without a table. */
export interface TunedShape extends TuneShape {
  readonly seconds: Readonly<Record<string, number>>;
}

/** A point of the table, and how much faster it is than the op's own choice: 0.1 is 10 %. */
export interface TunedPoint extends TilePoint {
  readonly gain: number;
}

export interface TunedFamily {
  readonly name: string;
  readonly tiles: readonly string[];
  /** Why nothing was measured; null when it was. */
  readonly missing: string | null;
  readonly shapes: readonly TunedShape[];
  readonly points: readonly TunedPoint[];
}

export interface TuneOptions {
  readonly shapes: readonly TuneShape[];
  /** Passes that are timed; the median counts. */
  readonly repeat: number;
  /** Inputs are rotated until so many bytes were read, so that no cache holds the weights; 0 to use one set. */
  readonly rotateBytes: number;
  /** Bytes of the arenas that inputs are taken from: room for the largest of them. */
  readonly arenaBytes: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number, total: number, name: string) => void;
}

/** Rows 1, 2, 4 … `mostRows` of a model's four products and of square ones, each once. */
export function tuneGrid(channels: number, squares: readonly number[], mostRows: number): TuneShape[] {
  const C = channels;
  const products = [[C, 3 * C], [C, C], [C, 4 * C], [4 * C, C], ...squares.map((n) => [n, n])];
  const shapes: TuneShape[] = [];
  for (const [depth, columns] of products)
    for (let rows = 1; rows <= mostRows; rows *= 2) shapes.push({ rows, depth: depth!, columns: columns! });
  return shapes;
}

/**
 * Measure the tiles of each family at each shape. gpu.tuning is what it was afterwards. Throws what a device's failure is, and the
 * signal's reason.
 */
export async function tuneFamilies(
  gpu: Gpu,
  families: readonly TuneFamily[],
  options: TuneOptions,
): Promise<TunedFamily[]> {
  const { shapes, signal, onProgress } = options;
  const there = families.filter((family) => family.missing(gpu) === undefined);
  const measured = new Map<TuneFamily, TunedShape[]>();
  const before = gpu.tuning;
  const inputs = there.length > 0 ? new ShaderInputs(gpu, options.arenaBytes) : undefined;
  try {
    for (const [i, family] of there.entries()) {
      const tuned: TunedShape[] = [];
      measured.set(family, tuned);
      for (const [j, shape] of shapes.entries()) {
        signal?.throwIfAborted();
        const done = i * shapes.length + j;
        onProgress?.(done, there.length * shapes.length, `${family.name} ${shapeName(shape)}`);
        const seconds = await tuneShape(gpu, inputs!, family, shape, options, tuned.length === 0);
        // At some shapes the op has another kernel, and there is nothing to choose.
        if (seconds) tuned.push({ ...shape, seconds });
      }
    }
  } finally {
    gpu.tuning = before;
    inputs?.free();
  }
  return families.map((family) => {
    const tuned = measured.get(family) ?? [];
    const unasked = tuned.length === 0 ? "the op asks for a tile at none of the shapes" : null;
    const missing = family.missing(gpu) ?? unasked;
    return { name: family.name, tiles: family.tiles, missing, shapes: tuned, points: choosePoints(tuned) };
  });
}

/** Seconds by tile; undefined when the op does not ask which tile it should take. */
async function tuneShape(
  gpu: Gpu,
  inputs: ShaderInputs,
  family: TuneFamily,
  { rows, depth, columns }: TuneShape,
  { repeat, rotateBytes }: TuneOptions,
  isFirst: boolean,
): Promise<Record<string, number> | undefined> {
  const bytes = (family.w === "f16" ? 2 : 4) * depth * columns;
  const sets = Math.min(MOST_SETS, Math.max(1, Math.ceil(rotateBytes / bytes)));
  let asked = false;
  const forced = (tile: string): Tuning => ({
    get [family.name]() {
      asked = true;
      return [{ rows, depth, columns, tile }];
    },
  });
  try {
    const made = Array.from({ length: sets }, () => {
      const { weight, bias } = inputs.randomLinear(depth, columns, family.w);
      return { x: inputs.random([rows, depth], family.x).tensor, weight, bias };
    });
    const record = () => {
      for (const { x, weight, bias } of made) family.run(x, weight, bias).free();
    };
    const time = async () => (await timeKernel(gpu, record, sets, repeat)).seconds;
    gpu.tuning = forced(family.tiles[0]!);
    family.run(made[0]!.x, made[0]!.weight, made[0]!.bias).free();
    await gpu.finish();
    if (!asked) return undefined;
    gpu.tuning = undefined;
    // A GPU that idled has low clocks, and the op's own choice is timed first.
    if (isFirst) await untilWarm(gpu.info.software, async () => void (await time()));
    const seconds: Record<string, number> = { [OWN_CHOICE]: await time() };
    for (const tile of family.tiles) {
      gpu.tuning = forced(tile);
      seconds[tile] = await time();
    }
    return seconds;
  } finally {
    gpu.tuning = undefined;
    inputs.release();
  }
}

/** The table of a family: for each shape the fastest tile; OWN_CHOICE where none is faster by LEAST_GAIN. */
export function choosePoints(shapes: readonly TunedShape[]): TunedPoint[] {
  return shapes.map(({ rows, depth, columns, seconds }) => {
    const own = seconds[OWN_CHOICE]!;
    const [tile, least] = Object.entries(seconds).reduce((a, b) => (b[1] < a[1] ? b : a));
    const gain = own / least - 1;
    return gain >= LEAST_GAIN
      ? { rows, depth, columns, tile, gain }
      : { rows, depth, columns, tile: OWN_CHOICE, gain: 0 };
  });
}

/** The points alone, for the cache. */
export function tuningOf(families: readonly TunedFamily[]): Tuning {
  return Object.fromEntries(
    families
      .filter((f) => f.points.length > 0)
      .map((f) => [f.name, f.points.map(({ gain: _, ...point }) => point)]),
  );
}

/** 64×768×3072. */
export function shapeName({ rows, depth, columns }: TuneShape): string {
  return `${rows}×${depth}×${columns}`;
}
