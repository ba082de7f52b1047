/** The summary as a table of text: for a terminal, a pipe or a log. The report's HTML table shows the same rows. */
import Table from "cli-table3";
import { PURPOSES } from "../gpu/memory.ts";
import { batchLabels, isBatch, rowLabels } from "./batch-labels.ts";
import type { BatchSummary } from "./batch-results.ts";
import { type Lang, labels } from "./labels.ts";
import {
  type BenchResults,
  finishedRuns,
  type ModeSummary,
  type SameTokens,
  type Timing,
  timingOfRuns,
} from "./results.ts";
import {
  formatBytes,
  formatCount,
  formatFactor,
  formatPercent,
  formatSeconds,
  memoryUnit,
  timeUnit,
  type Unit,
} from "./units.ts";

/** What stands for a figure that does not exist, such as the speed-up over a mode that did not run. */
const NOTHING = "–";
const DEFAULT_WIDTH = 80;

export interface SummaryRow {
  label: string;
  /** One formatted figure for each mode, in the order of the summary. */
  cells: string[];
  /** A part of the row above it. */
  indent: boolean;
}

/** The rows of the summary table, each in one unit. */
export function summaryRows(summary: readonly ModeSummary[], lang: Lang): SummaryRow[] {
  const { purposes } = labels(lang);
  const rows = rowLabels(summary, lang);
  const row = (label: string, cell: (s: ModeSummary) => string, indent = false): SummaryRow => ({
    label,
    cells: summary.map(cell),
    indent,
  });
  const largest = (value: (s: ModeSummary) => number) => Math.max(0, ...summary.map(value));
  const perToken = timeUnit(largest((s) => s.avgSecondsPerToken));
  const total = timeUnit(largest((s) => s.totalSeconds));
  const memory = memoryUnit(largest((s) => s.peakBytes));
  const time = (value: number | null, unit: Unit) => (value === null ? NOTHING : formatSeconds(value, unit));
  const factor = (value: number | null) => (value === null ? NOTHING : formatFactor(value));
  return [
    row(rows.average, (s) => time(s.avgSecondsPerToken, perToken)),
    row(rows.p50, (s) => time(s.p50SecondsPerToken, perToken)),
    row(rows.p95, (s) => time(s.p95SecondsPerToken, perToken)),
    row(rows.firstToken, (s) => time(s.timeToFirstTokenSeconds, perToken)),
    row(rows.decodeAverage, (s) => time(s.decodeAvgSeconds, perToken)),
    row(rows.total, (s) => time(s.totalSeconds, total)),
    row(rows.tokensPerSecond, (s) => s.tokensPerSecond.toFixed(1)),
    row(rows.speedup, (s) => factor(s.speedupOverNone)),
    row(rows.peak, (s) => formatBytes(s.peakBytes, memory)),
    ...PURPOSES.map((p) => row(purposes[p], (s) => formatBytes(s.peakByPurpose[p]), true)),
    row(rows.relativeMemory, (s) => factor(s.memoryRelativeToNone)),
    row(rows.kvAllocated, (s) => formatBytes(s.kvAllocatedBytes)),
    ...(isBatch(summary) ? batchRows(summary, lang) : kvRows(summary, lang)),
  ];
}

/** What a sequence keeps when it ends. */
function kvRows(summary: readonly ModeSummary[], lang: Lang): SummaryRow[] {
  const { rows } = labels(lang);
  const row = (label: string, cell: (s: ModeSummary) => string): SummaryRow => ({
    label,
    cells: summary.map(cell),
    indent: false,
  });
  return [
    row(rows.kvReserved, (s) => formatBytes(s.kvReservedBytes)),
    row(rows.kvUsed, (s) => formatBytes(s.kvUsedBytes)),
    row(rows.kvWasted, (s) => formatBytes(s.kvWastedBytes)),
    row(rows.kvWastedShare, (s) => (s.kvReservedBytes === 0 ? NOTHING : formatPercent(s.wastePercent))),
  ];
}

/** What the sequences of a batch keep while they run, and how many such would fit. */
function batchRows(summary: readonly ModeSummary[], lang: Lang): SummaryRow[] {
  const { rows } = batchLabels(lang);
  const row = (label: string, cell: (b: BatchSummary) => string): SummaryRow => ({
    label,
    cells: summary.map((s) => (s.batch === undefined ? NOTHING : cell(s.batch))),
    indent: false,
  });
  return [
    row(rows.kvReservedPeak, (b) => formatBytes(b.kvPeakReservedBytes)),
    row(rows.kvReservedMean, (b) => formatBytes(b.kvMeanReservedBytes)),
    row(rows.kvUsedMean, (b) => formatBytes(b.kvMeanUsedBytes)),
    row(rows.kvWastedMean, (b) => formatBytes(b.kvMeanReservedBytes - b.kvMeanUsedBytes)),
    row(labels(lang).rows.kvWastedShare, (b) =>
      b.kvMeanReservedBytes === 0 ? NOTHING : formatPercent(b.meanWastePercent),
    ),
    row(rows.kvPerSequence, (b) => formatBytes(b.kvReservedBytesPerSequence)),
    row(rows.sequencesThatFit, (b) =>
      b.sequencesInContiguousBytes === null ? NOTHING : formatCount(b.sequencesInContiguousBytes),
    ),
  ];
}

/** The line that says whether every run gave the same tokens, or where the first difference is. */
export function samenessLine(same: SameTokens, modes: number, lang: Lang): string {
  const text = labels(lang);
  const d = same.firstDifference;
  if (d !== undefined) {
    const sequence = d.sequence === undefined ? "" : batchLabels(lang).sequence(d.sequence);
    const name = (mode: typeof d.modeA, repeat: number, token: number | null) =>
      `${text.runName(text.modes[mode], repeat)}${sequence}: ${token ?? text.endOfRun}`;
    return text.differs(d.step, name(d.modeA, d.repeatA, d.tokenA), name(d.modeB, d.repeatB, d.tokenB));
  }
  if (same.identical === null) return same.runs === 0 ? text.noRun : text.onlyOneRun;
  if (same.sequences !== undefined)
    return batchLabels(lang).same(modes, same.runs, same.tokens, same.sequences);
  return text.same(modes, same.runs, same.tokens);
}

/**
 * The whole answer as plain text: table, conclusion, texts, sameness; no colours and no control characters of its own.
 * `width` is the terminal's columns; a table that does not fit becomes a list.
 */
export function resultsText(results: BenchResults, lang: Lang, width: number = DEFAULT_WIDTH): string {
  const modes = new Set(results.runs.map((r) => r.mode)).size;
  return [
    summaryTable(results.summary, timingOfRuns(results.runs), lang, width),
    "",
    ...results.conclusion.map((sentence) => `- ${sentence}`),
    "",
    ...generatedTexts(results, lang).flatMap((t) => [`── ${t.heading} ──`, printable(t.text), ""]),
    samenessLine(results.sameTokens, modes, lang),
  ].join("\n");
}

/** The text of each mode, or one text for all modes when they wrote the same; of a batch the text of sequence 0. */
export function generatedTexts(results: BenchResults, lang: Lang): { heading: string; text: string }[] {
  const text = labels(lang);
  const firsts = results.summary.map((s) => finishedRuns(results.runs, s.mode)[0]!);
  const same = firsts.length > 1 && firsts.every((r) => r.text === firsts[0]!.text);
  const which = isBatch(results.summary) ? batchLabels(lang).sequence(0) : "";
  if (same) return [{ heading: text.report.allModes + which, text: firsts[0]!.text }];
  return firsts.map((r) => ({ heading: text.modes[r.mode] + which, text: r.text }));
}

/**
 * The rows under the names of the modes, with the timing of the steps in the corner; a list, mode by mode, when `width`
 * columns are too few; a sentence for none.
 */
export function summaryTable(
  summary: readonly ModeSummary[],
  timing: Timing,
  lang: Lang,
  width: number,
): string {
  const text = labels(lang);
  if (summary.length === 0) return text.nothingFinished;
  const rows = summaryRows(summary, lang);
  const label = (row: SummaryRow) => (row.indent ? `  ${row.label}` : row.label);
  const head = [text.timing[timing], ...summary.map((s) => text.modes[s.mode])];
  const lines = plainTable(
    head,
    rows.map((row) => [label(row), ...row.cells]),
  );
  if (lines.every((line) => tableColumns(line) <= width)) return lines.join("\n");
  const lists = summary.flatMap((s, i) => [
    text.modes[s.mode],
    ...rows.map((row) => `  ${label(row)}: ${row.cells[i]}`),
    "",
  ]);
  return [text.timing[timing], ...lists].join("\n").trimEnd();
}

/** A table as lines: a head, a rule, rows; the first column to the left, all others to the right. */
export function plainTable(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const table = new Table({
    head: [...head],
    colAligns: head.map((_, i) => (i === 0 ? "left" : "right")),
    style: { head: [], border: [], "padding-left": 1, "padding-right": 1 },
    chars: PLAIN,
  });
  table.push(...rows.map((row) => [...row]));
  const [first = "", ...body] = table
    .toString()
    .split("\n")
    .map((line) => line.trimEnd());
  const widest = Math.max(...[first, ...body].map(tableColumns));
  return [first, "─".repeat(widest), ...body];
}

/** Columns without lines between them, so that a copy and paste has nothing to lose. */
const PLAIN = {
  top: "",
  "top-mid": "",
  "top-left": "",
  "top-right": "",
  bottom: "",
  "bottom-mid": "",
  "bottom-left": "",
  "bottom-right": "",
  left: "",
  "left-mid": "",
  right: "",
  "right-mid": "",
  middle: " ",
  mid: "",
  "mid-mid": "",
};

/** Terminal columns of a line: two for each CJK or full-width character. */
export function tableColumns(line: string): number {
  const wide = line.match(
    /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]/g,
  );
  return line.length + (wide?.length ?? 0);
}

/** The text with control characters other than tab and line feed replaced, so that a model cannot steer the terminal. */
function printable(text: string): string {
  return text.replace(/[^\P{Cc}\t\n]/gu, "\ufffd");
}
