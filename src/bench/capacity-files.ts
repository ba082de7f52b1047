/** The files of the capacity experiment: figures first, then tables for other programs, charts, page maps, the report. */
import { join } from "node:path";
import type { CapacityRun } from "./capacity.ts";
import { layoutId, MIXES } from "./capacity-cases.ts";
import { capacityChartIds, capacityCharts } from "./capacity-charts.ts";
import type { CapacityStep } from "./capacity-figures.ts";
import { capacityReport } from "./capacity-report.ts";
import { CAPACITY_RESULTS, type CapacityFigures, type CapacityResults } from "./capacity-results.ts";
import { LIGHT } from "./chart-parts.ts";
import { chartSvg } from "./chart-svg.ts";
import type { PageMap } from "./page-map.ts";
import { pageMapSvg } from "./page-map-draw.ts";
import { FILE_STYLE } from "./page-map-style.ts";
import { type ResultFile, writeFiles } from "./write-results.ts";

/**
 * Writes results.json, capacity.csv, steps.csv, charts/*.svg and report.html; see `writeFiles`.
 * @returns the paths of the files.
 */
export async function writeCapacity(
  dir: string,
  results: CapacityResults,
  runs: readonly CapacityRun[],
  maps: readonly PageMap[],
): Promise<string[]> {
  const parsed = CAPACITY_RESULTS.safeParse(results);
  const charts = capacityCharts(results, LIGHT);
  const drawn = (id: string): ResultFile => {
    const chart = charts.find((c) => c.id === id);
    return [join("charts", `${id}.svg`), chart && (() => `${chartSvg(chart)}\n`)];
  };
  const mapped = (mix: string): ResultFile => {
    const map = maps.find((m) => m.id === mix);
    return [join("charts", `page-map-${mix}.svg`), map && (() => `${pageMapSvg(map, FILE_STYLE)}\n`)];
  };
  const files: ResultFile[] = [
    ["results.json", () => `${JSON.stringify(parsed.data ?? results, null, 1)}\n`],
    ["capacity.csv", () => capacityCsv(results)],
    ["steps.csv", () => capacityStepsCsv(runs)],
    ...capacityChartIds(MIXES).map(drawn),
    ...MIXES.map(mapped),
    ["report.html", () => capacityReport(results, maps)],
  ];
  return writeFiles(dir, files, parsed.error);
}

const FIGURES = [
  ["steps", "steps"],
  ["computedTokens", "computed_tokens"],
  ["generatedTokens", "generated_tokens"],
  ["preemptions", "preemptions"],
  ["recomputedTokens", "recomputed_tokens"],
  ["peakSequences", "peak_sequences"],
  ["crowdedSteps", "crowded_steps"],
  ["meanSequences", "mean_sequences"],
  ["meanReserved", "mean_reserved_slots"],
  ["meanUsed", "mean_used_slots"],
  ["meanInternal", "mean_internal_slots"],
  ["meanExternal", "mean_external_slots"],
  ["meanShared", "mean_shared_slots"],
  ["wastePercent", "waste_percent"],
  ["idlePercent", "idle_percent"],
  ["prefixQueries", "prefix_query_tokens"],
  ["prefixHits", "prefix_hit_tokens"],
] as const satisfies [keyof CapacityFigures, string][];

const TIMES = [
  ["seconds", "seconds"],
  ["outputTokensPerSecond", "output_tokens_per_second"],
  ["totalTokensPerSecond", "total_tokens_per_second"],
  ["meanTimeToFirstToken", "mean_time_to_first_token_seconds"],
  ["meanEndToEnd", "mean_end_to_end_seconds"],
  ["steps", "measured_steps"],
  ["preemptions", "measured_preemptions"],
  ["meanSequences", "measured_mean_sequences"],
  ["peakSequences", "measured_peak_sequences"],
  ["wastePercent", "measured_waste_percent"],
] as const;

/** One line for each row of the table; what a row does not have is empty. */
export function capacityCsv(results: CapacityResults): string {
  const head = ["mix", "layout", "page_size", "prefix_cache", "budget_slots", "total_slots"];
  const lines = results.rows.map(({ simulated, measured, ...row }) => [
    ...[row.mix, row.layout, row.pageSize, row.prefixCache, results.options.kvTokens, row.totalTokens],
    ...FIGURES.map(([key]) => simulated?.[key] ?? ""),
    ...TIMES.map(([key]) => measured?.[key] ?? ""),
  ]);
  return csv([[...head, ...FIGURES.map(([, name]) => name), ...TIMES.map(([, name]) => name)], ...lines]);
}

const STEP: readonly (keyof CapacityStep)[] = [
  ...(["tokens", "sampled", "running", "waiting", "preempted"] as const),
  ...(["reserved", "used", "logical"] as const),
];

/** One line for each step of each simulation; memory in slots. */
export function capacityStepsCsv(runs: readonly CapacityRun[]): string {
  const lines = runs.flatMap(({ row, steps }) =>
    steps.map((step, i) => [row.mix, layoutId(row), i, ...STEP.map((key) => step[key])]),
  );
  return csv([["mix", "layout", "step", ...STEP], ...lines]);
}

function csv(lines: readonly (readonly (string | number | boolean)[])[]): string {
  return `${lines.map((line) => line.join(",")).join("\n")}\n`;
}
