import { z } from "zod";

// Which tile of a kernel is fastest depends on the shape and the adapter, and is measured (`quire bench shaders --tune`). All
// tiles of a family give the same bits: a table of measured points changes times, never results.

/** The tile of a point where none was faster than the kernel's own choice. */
export const OWN_CHOICE = "default";

const point = z.object({
  /** Of the product [rows, depth] · [depth, columns]. */
  rows: z.int().min(1),
  /** Absent: any. */
  depth: z.int().min(1).optional(),
  columns: z.int().min(1),
  /** A shader part, such as "matrix-tile-64", or OWN_CHOICE. */
  tile: z.string().min(1).max(100),
});
export type TilePoint = z.infer<typeof point>;
export type TileTable = readonly TilePoint[];

/** For each family of tiles the points that were measured. */
export type Tuning = Readonly<Partial<Record<string, TileTable>>>;

/** Changes whenever a field changes its meaning. */
export const TUNING_SCHEMA = "quire-tuning/1";

const FILE = z.object({
  schema: z.literal(TUNING_SCHEMA),
  /** Whom it was measured on; null where the runtime does not tell the driver. */
  adapter: z.string(),
  driver: z.string().nullable(),
  createdAt: z.iso.datetime(),
  families: z.record(
    z.string(),
    z.object({
      /** Hash of the shaders that were measured. */
      kernels: z.string(),
      points: z.array(point).max(10_000),
    }),
  ),
});
export type TuningFile = z.infer<typeof FILE>;

/** What a tuning file must fit to be used. */
export interface TuningFor {
  readonly adapter: string;
  readonly driver: string | null;
  /** For each family that there is: the hash of its shaders now, and its tiles. */
  readonly families: Readonly<
    Record<string, { readonly kernels: string; readonly tiles: readonly string[] }>
  >;
}

/** What a file gives, and why it gives no more. */
export interface ParsedTuning {
  readonly tuning: Tuning;
  /** One sentence for each thing that was ignored. */
  readonly ignored: readonly string[];
}

/**
 * The tile for a product [rows, depth] · [depth, columns]: that of the nearest measured point, distances taken between logarithms,
 * since twice as many rows matter as much at 8 as at 800. Without a depth it does not count. Where two are as near, the one with
 * fewer rows, then fewer columns, then less depth. `fallback` without a table, and where the point says that nothing was faster.
 */
export function chooseTile(
  table: TileTable | undefined,
  rows: number,
  columns: number,
  fallback: string,
  depth?: number,
): string {
  if (table === undefined || table.length === 0) return fallback;
  const { tile } = nearest(table, rows, columns, depth);
  return tile === OWN_CHOICE ? fallback : tile;
}

/** Asked for with every launch of a product, so what was found is kept: for each table, by shape. */
const found = new WeakMap<TileTable, Map<string, TilePoint>>();
/** Prompts of many lengths must not fill the memory. */
const MOST_FOUND = 4096;

function nearest(table: TileTable, rows: number, columns: number, depth: number | undefined): TilePoint {
  const known = found.get(table) ?? new Map<string, TilePoint>();
  found.set(table, known);
  const key = `${rows} ${columns} ${depth}`;
  const before = known.get(key);
  if (before) return before;
  const apart = (a: number | undefined, b: number | undefined) => (a && b ? Math.log(a / b) ** 2 : 0);
  const distance = (p: TilePoint) => apart(p.rows, rows) + apart(p.columns, columns) + apart(p.depth, depth);
  const best = table.reduce((a, b) => {
    const order =
      distance(a) - distance(b) ||
      a.rows - b.rows ||
      a.columns - b.columns ||
      (a.depth ?? 0) - (b.depth ?? 0);
    return order <= 0 ? a : b;
  });
  if (known.size >= MOST_FOUND) known.clear();
  known.set(key, best);
  return best;
}

/**
 * The tables in the text of a tuning file that fit adapter, driver, kernels and tiles; the rest is told in `ignored`. Never
 * throws: a damaged file costs speed alone.
 */
export function parseTuning(text: string, wanted: TuningFor): ParsedTuning {
  const nothing = (why: string): ParsedTuning => ({ tuning: {}, ignored: [why] });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return nothing("it is no JSON");
  }
  const parsed = FILE.safeParse(json);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    return nothing(`${issue!.path.join(".") || "the whole"}: ${issue!.message}`);
  }
  const { adapter, driver, families } = parsed.data;
  if (adapter !== wanted.adapter || driver !== wanted.driver)
    return nothing(`it was measured on ${adapter} with driver ${driver ?? "unknown"}`);
  const tuning: Record<string, TileTable> = {};
  const ignored: string[] = [];
  for (const [name, { kernels, points }] of Object.entries(families)) {
    // A family that is gone is asked for by nobody.
    if (!Object.hasOwn(wanted.families, name)) continue;
    const now = wanted.families[name]!;
    const stranger = points.find((p) => p.tile !== OWN_CHOICE && !now.tiles.includes(p.tile));
    if (kernels !== now.kernels) ignored.push(`${name}: its shaders have changed since`);
    else if (stranger) ignored.push(`${name}: there is no tile ${JSON.stringify(stranger.tile)}`);
    else tuning[name] = points;
  }
  return { tuning, ignored };
}

/** The text of a tuning file. */
export function tuningText(tuning: Tuning, { adapter, driver, families }: TuningFor, now: Date): string {
  const file: TuningFile = {
    schema: TUNING_SCHEMA,
    adapter,
    driver,
    createdAt: now.toISOString(),
    families: Object.fromEntries(
      Object.entries(tuning).map(([name, points = []]) => [
        name,
        { kernels: families[name]!.kernels, points: [...points] },
      ]),
    ),
  };
  return `${JSON.stringify(file, null, 1)}\n`;
}
