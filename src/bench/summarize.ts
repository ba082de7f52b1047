/** From the measured runs to the figures of the table: nothing here measures, and nothing rounds. */
import { type ByPurpose, PURPOSES } from "../gpu/memory.ts";
import { CACHE_MODES, sum } from "../kv/cache.ts";
import type { BatchSummary } from "./batch-results.ts";
import { mean, median, standardDeviation, statistics } from "./measure.ts";
import {
  finishedRuns,
  type ModeSummary,
  type RunResult,
  type SameTokens,
  sequencesOf,
  tokensOf,
} from "./results.ts";

/** Half-width of the bounds in standard errors, about 95 % for a normal distribution. */
const STANDARD_ERRORS = 2;

/** One summary for each mode that has a finished run, in the order of CACHE_MODES. */
export function summarize(runs: readonly RunResult[]): ModeSummary[] {
  const summaries = CACHE_MODES.map((mode) => finishedRuns(runs, mode))
    .filter((modeRuns) => modeRuns.length > 0)
    .map(summarizeMode)
    .map(withRoom);
  const none = summaries.find((s) => s.mode === "none");
  if (none === undefined) return summaries;
  return summaries.map((s) => ({
    ...s,
    speedupOverNone: ratio(none.avgSecondsPerToken, s.avgSecondsPerToken),
    memoryRelativeToNone: ratio(s.peakBytes, none.peakBytes),
  }));
}

function summarizeMode(runs: readonly RunResult[]): ModeSummary {
  const steps = runs.flatMap((r) => r.steps);
  const all = statistics(steps.map((s) => s.seconds));
  const decode = runs.flatMap((r) => stepSeconds(r).slice(1));
  const totalSeconds = mean(runs.map((r) => r.totalSeconds));
  const { low, high } = averageBounds(runs);
  const last = runs[0]!.steps.at(-1)!;
  const wasted = last.kvReservedBytes - last.kvUsedBytes;
  return {
    mode: runs[0]!.mode,
    repeats: runs.length,
    steps: all.count,
    avgSecondsPerToken: all.mean,
    p50SecondsPerToken: all.p50,
    p95SecondsPerToken: all.p95,
    timeToFirstTokenSeconds: mean(runs.map((r) => r.timeToFirstTokenSeconds)),
    decodeAvgSeconds: decode.length > 0 ? mean(decode) : null,
    totalSeconds,
    tokensPerSecond: ratio(sum(steps.map(sequencesOf)) / runs.length, totalSeconds) ?? 0,
    avgLowSeconds: low,
    avgHighSeconds: high,
    ...growth(runs),
    peakBytes: Math.max(...runs.map((r) => r.peakBytes)),
    peakByPurpose: largestByPurpose(runs.map((r) => r.peakByPurpose)),
    kvAllocatedBytes: last.kvAllocatedBytes,
    kvReservedBytes: last.kvReservedBytes,
    kvUsedBytes: last.kvUsedBytes,
    kvWastedBytes: wasted,
    wastePercent: 100 * (ratio(wasted, last.kvReservedBytes) ?? 0),
    speedupOverNone: null,
    memoryRelativeToNone: null,
    ...batchSummary(runs),
  };
}

/** What a batch kept for its sequences; nothing for a batch of 1. */
function batchSummary(runs: readonly RunResult[]): Pick<ModeSummary, "batch"> {
  const sequences = runs[0]!.sequences?.length;
  if (sequences === undefined) return {};
  const steps = runs.flatMap((r) => r.steps);
  const reserved = sum(steps.map((s) => s.kvReservedBytes));
  const used = sum(steps.map((s) => s.kvUsedBytes));
  const batch: BatchSummary = {
    sequences,
    kvPeakReservedBytes: Math.max(...steps.map((s) => s.kvReservedBytes)),
    kvMeanReservedBytes: reserved / steps.length,
    kvMeanUsedBytes: used / steps.length,
    meanWastePercent: 100 * (ratio(reserved - used, reserved) ?? 0),
    kvReservedBytesPerSequence: reserved / sum(steps.map(sequencesOf)),
    sequencesInContiguousBytes: null,
  };
  return { batch };
}

/** The summary with the sequences that would have room in the contiguous mode's buffers, where that mode ran. */
function withRoom(s: ModeSummary, _: number, all: readonly ModeSummary[]): ModeSummary {
  const room = all.find(({ mode }) => mode === "contiguous")?.kvAllocatedBytes;
  if (s.batch === undefined || room === undefined || s.batch.kvReservedBytesPerSequence === 0) return s;
  const sequencesInContiguousBytes = Math.floor(room / s.batch.kvReservedBytesPerSequence);
  return { ...s, batch: { ...s.batch, sequencesInContiguousBytes } };
}

/**
 * Bounds of a mode's average seconds per token; two modes whose bounds overlap are not told apart.
 * With several repeats: the fastest and the slowest repeat. With one: the mean plus and minus two standard errors of its decode
 * steps, which is only a floor, since the steps of one run share what disturbs them.
 */
export function averageBounds(runs: readonly RunResult[]): { low: number; high: number } {
  const averages = runs.map((r) => mean(stepSeconds(r)));
  if (averages.length > 1) return { low: Math.min(...averages), high: Math.max(...averages) };
  const decode = stepSeconds(runs[0]!).slice(1);
  const half =
    decode.length > 1 ? (STANDARD_ERRORS * standardDeviation(decode)) / Math.sqrt(decode.length) : 0;
  return { low: averages[0]! - half, high: averages[0]! + half };
}

/**
 * Compares every run with the first whole one, all repeats and all sequences included, and reports the earliest step where one
 * differs. A run that broke off is compared as far as it went; one without a token cannot be.
 */
export function compareTokens(runs: readonly RunResult[]): SameTokens {
  const able = runs.filter((r) => r.tokens.length > 0);
  const lengths = able.map((r) => sum(tokensOf(r).map((tokens) => tokens.length)));
  const sequences = able[0]?.sequences?.length;
  const compared = {
    runs: able.length,
    tokens: able.length > 0 ? Math.min(...lengths) : 0,
    ...(sequences !== undefined && { sequences }),
  };
  if (able.length < 2) return { identical: null, ...compared };
  // One that broke off would hide where those after it differ.
  const first = finishedRuns(able)[0] ?? able[lengths.indexOf(Math.max(...lengths))]!;
  let earliest: SameTokens["firstDifference"];
  for (const other of able) {
    const found = firstDifferent(first, other);
    if (found === undefined || (earliest !== undefined && found.index + 1 >= earliest.step)) continue;
    const { index, sequence } = found;
    earliest = {
      step: index + 1,
      modeA: first.mode,
      repeatA: first.repeat,
      tokenA: tokensOf(first)[sequence]![index] ?? null,
      modeB: other.mode,
      repeatB: other.repeat,
      tokenB: tokensOf(other)[sequence]![index] ?? null,
      ...(sequences !== undefined && { sequence }),
    };
  }
  return earliest === undefined
    ? { identical: true, ...compared }
    : { identical: false, ...compared, firstDifference: earliest };
}

/** The earliest place where the tokens of two runs differ, and the first sequence that differs there. */
function firstDifferent(a: RunResult, b: RunResult): { index: number; sequence: number } | undefined {
  const brokeOff = a.finishReason === "error" || b.finishReason === "error";
  let earliest: { index: number; sequence: number } | undefined;
  const others = tokensOf(b);
  tokensOf(a).forEach((tokens, sequence) => {
    const index = firstDifferentIndex(tokens, others[sequence]!, brokeOff);
    if (index !== undefined && index < (earliest?.index ?? Number.POSITIVE_INFINITY))
      earliest = { index, sequence };
  });
  return earliest;
}

function firstDifferentIndex(
  a: readonly number[],
  b: readonly number[],
  brokeOff: boolean,
): number | undefined {
  const length = brokeOff ? Math.min(a.length, b.length) : Math.max(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return i;
  return undefined;
}

type Growth = Pick<
  ModeSummary,
  "earlyDecodeSeconds" | "lateDecodeSeconds" | "firstTokenExcessSeconds" | "growthExcessSeconds"
>;

/** How a run's time divides: early decode steps are the base, and the first token and the later steps cost more or less. */
function growth(runs: readonly RunResult[]): Growth {
  const decodes = runs.map((r) => stepSeconds(r).slice(1));
  const quarters = decodes.map((d) => Math.floor(d.length / 4));
  if (quarters.some((q) => q === 0)) {
    return {
      earlyDecodeSeconds: null,
      lateDecodeSeconds: null,
      firstTokenExcessSeconds: 0,
      growthExcessSeconds: 0,
    };
  }
  const early = median(decodes.flatMap((d, i) => d.slice(0, quarters[i]!)));
  const late = median(decodes.flatMap((d, i) => d.slice(d.length - quarters[i]!)));
  return {
    earlyDecodeSeconds: early,
    lateDecodeSeconds: late,
    firstTokenExcessSeconds: mean(runs.map((r) => r.steps[0]!.seconds)) - early,
    growthExcessSeconds: mean(decodes.map((d) => sum(d) - d.length * early)),
  };
}

function stepSeconds(run: RunResult): number[] {
  return run.steps.map((s) => s.seconds);
}

function largestByPurpose(peaks: readonly ByPurpose[]): ByPurpose {
  const largest: ByPurpose = { weights: 0, kv: 0, activations: 0, tables: 0, staging: 0 };
  for (const purpose of PURPOSES) largest[purpose] = Math.max(...peaks.map((p) => p[purpose]));
  return largest;
}

/** a / b, or null when b is 0. */
function ratio(a: number, b: number): number | null {
  return b === 0 ? null : a / b;
}

/** Whether the averages of two modes differ by more than their spread. */
export function toldApart(a: ModeSummary, b: ModeSummary): boolean {
  return a.avgHighSeconds < b.avgLowSeconds || b.avgHighSeconds < a.avgLowSeconds;
}
