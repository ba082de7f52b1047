import type { Gpu } from "../gpu/gpu.ts";
import { OWN_CHOICE } from "../gpu/tuning.ts";
import { environment } from "./environment.ts";
import type { BenchResults } from "./results.ts";
import type { ShapeName } from "./shader-case.ts";
import { plainTable } from "./table.ts";
import { shapeName, type TunedFamily, type TuneOptions } from "./tune.ts";
import { formatPercent } from "./units.ts";

/** Changes whenever a field changes its meaning. */
export const TUNE_SCHEMA = "quire-bench-tune/1";

/** The JSON of `quire bench shaders --tune`: durations in seconds. */
export interface TuneResults
  extends Pick<BenchResults, "quire" | "createdAt" | "command" | "runtime" | "adapter"> {
  readonly schema: typeof TUNE_SCHEMA;
  readonly options: { readonly shape: ShapeName; readonly repeat: number; readonly rotateBytes: number };
  /** `points` are in the order of `shapes`. */
  readonly families: readonly TunedFamily[];
  /** Where the choice is kept; null where nothing was measured. */
  readonly file: string | null;
}

export function tuneResults(
  gpu: Gpu,
  shape: ShapeName,
  { repeat, rotateBytes }: TuneOptions,
  families: readonly TunedFamily[],
  file: string | null,
): TuneResults {
  return {
    schema: TUNE_SCHEMA,
    ...environment(gpu),
    options: { shape, repeat, rotateBytes },
    families,
    file,
  };
}

/** A table for each family: µs of every tile at every shape, what was chosen, and what it gains. */
export function tuneText({ adapter, families, options, file }: TuneResults): string {
  const lines = [`${adapter.description}, profile ${adapter.profile}; median of ${options.repeat}`];
  for (const { name, tiles, missing, shapes, points } of families) {
    if (missing !== null) {
      lines.push("", `${name}: nothing to tune: ${missing}`);
      continue;
    }
    const names = [OWN_CHOICE, ...tiles];
    const rows = shapes.map((shape, i) => {
      const point = points[i]!;
      return [
        shapeName(shape),
        ...names.map((n) => (shape.seconds[n]! * 1e6).toFixed(2)),
        point.tile,
        point.tile === OWN_CHOICE ? "" : formatPercent(100 * point.gain),
      ];
    });
    lines.push("", ...plainTable([`${name}, µs`, ...names, "chosen", "gain"], rows));
  }
  return [
    ...lines,
    "",
    "default: what the op chooses without a table; it stays where no tile gains 3 %. Times change by this, results never do.",
    file === null ? "Nothing was written." : `Written to ${file}; delete it to have the defaults again.`,
  ].join("\n");
}
