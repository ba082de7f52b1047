/** The table of the capacity experiment as text: for a terminal, a pipe or a log. The report's HTML table shows the same cells. */
import { layoutName, MIX_NAMES, type Mix } from "./capacity-cases.ts";
import {
  type CapacityMix,
  type CapacityResults,
  type CapacityRow,
  type FiguredRow,
  rowsOf,
} from "./capacity-results.ts";
import { plainTable, tableColumns } from "./table.ts";
import { formatCount, formatFactor, formatPercent, formatSeconds } from "./units.ts";

/** What stands for a figure that does not exist. */
const NOTHING = "–";
/** Columns of a pipe, which takes lines of any length: the whole table. */
const DEFAULT_WIDTH = 160;

export const COLUMNS = [
  "layout",
  "at once",
  "peak",
  "× max",
  "waste",
  "external",
  "idle",
  "preempted",
  "found",
  "steps",
  "tokens/s",
  "time",
] as const;

/** What the columns are, for below the table. */
export const COLUMNS_NOTE =
  "At once: sequences that run, mean over the steps in which requests wait for memory (or, if none ever does, the peak). × max: over strips of maximum length. " +
  "Waste: reserved and not used, of the reserved. External: free, but the next request does not fit, of the budget. " +
  "Idle: all of the budget that holds no token. Found: prompt tokens that the prefix cache had. " +
  "Tokens/s: new tokens, on the engine; all else is simulated step by step, exact on every machine. " +
  "Pages are whole, and the first one is nobody's (padding writes there): what that leaves of the budget is lost to them, and strips have all of it.";

/** The rows of one mix; the layout's name first. A layout that was refused has nothing but that. */
export function capacityCells(results: CapacityResults, mix: Mix): string[][] {
  const figured = rowsOf(results, mix);
  const { kvTokens } = results.options;
  return results.rows
    .filter((r) => r.mix === mix)
    .map((row) => {
      const figures = figured.find((f) => f === row);
      return [layoutName(row), ...(figures ? figureCells(figures, figured[0]!, kvTokens) : [stateOf(row)])];
    });
}

function figureCells(row: FiguredRow, first: FiguredRow, kvTokens: number): string[] {
  const { simulated: s, measured: m } = row;
  const base = first.layout === "strips-max" ? first.simulated.meanSequences : 0;
  return [
    s.meanSequences.toFixed(1),
    String(s.peakSequences),
    base > 0 ? formatFactor(s.meanSequences / base) : NOTHING,
    formatPercent(s.wastePercent),
    formatPercent((100 * s.meanExternal) / kvTokens),
    formatPercent(s.idlePercent),
    formatCount(s.preemptions),
    row.prefixCache && s.prefixQueries > 0 ? formatPercent((100 * s.prefixHits) / s.prefixQueries) : NOTHING,
    formatCount(s.steps),
    m ? formatCount(Math.round(m.outputTokensPerSecond)) : NOTHING,
    m ? formatSeconds(m.seconds) : NOTHING,
  ];
}

/** Why a row has no figures. */
export function stateOf({ refused, error }: CapacityRow): string {
  if (refused !== undefined) return "cannot hold the longest request";
  return error === undefined ? "did not run" : "broke off";
}

/** One line about the requests of a mix. */
export function mixLine({
  requests,
  promptTokens,
  outputTokens,
  longest,
  prefixTokens,
}: CapacityMix): string {
  const prefix = prefixTokens > 0 ? `, the first ${formatCount(prefixTokens)} tokens the same in all` : "";
  return (
    `${formatCount(requests)} requests, ${(promptTokens / requests).toFixed(0)} tokens in and ` +
    `${(outputTokens / requests).toFixed(0)} out on average, the longest ${formatCount(longest)}${prefix}`
  );
}

/** What all rows share. */
export function budgetLine({ options, model }: CapacityResults): string {
  return (
    `KV budget: ${formatCount(options.kvTokens)} slots of ${formatCount(model.kvBytesPerToken)} bytes, ` +
    `the longest request ${formatCount(options.maxSeqLen)} tokens, ` +
    `at most ${formatCount(options.maxSequences)} sequences and ${formatCount(options.maxBatchedTokens)} tokens a step`
  );
}

/** The whole answer as plain text: a table for each mix and the conclusion. A table that does not fit `width` becomes a list. */
export function capacityText(results: CapacityResults, width: number = DEFAULT_WIDTH): string {
  const tables = results.mixes.flatMap((m) => [
    `${MIX_NAMES[m.mix]}: ${mixLine(m)}`,
    mixTable(capacityCells(results, m.mix), width),
    "",
  ]);
  return [
    budgetLine(results),
    "",
    ...tables,
    COLUMNS_NOTE,
    "",
    ...results.conclusion.map((sentence) => `- ${sentence}`),
  ].join("\n");
}

function mixTable(rows: readonly string[][], width: number): string {
  const whole = rows.filter((r) => r.length === COLUMNS.length);
  const others = rows.filter((r) => r.length < COLUMNS.length).map(([name, why]) => `${name}: ${why}`);
  const table = whole.length > 0 ? plainTable([...COLUMNS], whole) : [];
  if (table.every((line) => tableColumns(line) <= width)) return [...table, ...others].join("\n");
  const lists = whole.flatMap(([name, ...cells]) => [
    name!,
    ...cells.map((cell, i) => `  ${COLUMNS[i + 1]}: ${cell}`),
  ]);
  return [...lists, ...others].join("\n");
}
