/**
 * Sentences about the figures of a KV experiment. Each is computed, none claims more than the figures show: differences
 * within the spread are called that, and a mode that lost is said to have lost.
 */
import { concludeBatch, type Workload } from "./batch-conclude.ts";
import { isBatch } from "./batch-labels.ts";
import { type ConclusionText, conclusionText } from "./conclusion-text.ts";
import { batchLengths } from "./kv-batch.ts";
import type { Lang } from "./labels.ts";
import {
  type BenchResults,
  type MeasuredResults,
  type ModeSummary,
  RESULTS_SCHEMA,
  type Timing,
  timingOfRuns,
} from "./results.ts";
import { compareTokens, summarize, toldApart } from "./summarize.ts";
import { formatBytes, formatFactor, formatPercent, formatSeconds } from "./units.ts";

/** The late decode steps must take this many times as long as the early ones before we speak of growth. */
const GROWTH_FACTOR = 1.1;
/** The first token must cost this share of a run beyond an early decode step before we call it what dominates. */
const NOTABLE_SHARE = 0.05;

/** What the summary does not hold and the conclusion must not keep quiet about. */
export interface Circumstances {
  /** The adapter is simulated on the CPU. */
  software: boolean;
  /** How the steps were timed, where a mode has a cache. */
  timing: Timing;
  /** Every run gave the same tokens; null when there were not two to compare. */
  sameTokens: boolean | null;
  /** Of a batch: what its sequences were asked for. */
  workload?: Workload;
  /** Why the experiment stopped early, if it did. */
  incomplete?: string;
}

/** The conclusion, one sentence or two an entry, caveats last. */
export function concludeFrom(
  summary: readonly ModeSummary[],
  circumstances: Circumstances,
  lang: Lang,
): string[] {
  const text = conclusionText(lang);
  return [
    ...speed(summary, text),
    // Steps of a batch get shorter as its sequences end, and at the end only the longest is left.
    ...(circumstances.workload
      ? concludeBatch(summary, circumstances.workload, lang)
      : [...summary.map((s) => course(s, text)), ...kvMemory(summary, text)]),
    ...peakMemory(summary, text),
    ...caveats(summary, circumstances, text),
  ];
}

/** What was measured together with all that follows from it: the content of results.json. */
export function completeResults(measured: MeasuredResults, lang: Lang): BenchResults {
  const { incomplete, ...rest } = measured;
  const summary = summarize(measured.runs);
  const sameTokens = compareTokens(measured.runs);
  const circumstances = {
    software: measured.adapter.software,
    timing: timingOfRuns(measured.runs),
    sameTokens: sameTokens.identical,
    ...workloadOf(measured),
    ...(incomplete === undefined ? {} : { incomplete }),
  };
  const conclusion = concludeFrom(summary, circumstances, lang);
  return {
    schema: RESULTS_SCHEMA,
    ...rest,
    summary,
    sameTokens,
    conclusion,
    ...(incomplete === undefined ? {} : { incomplete }),
  };
}

function workloadOf({ options }: MeasuredResults): Pick<Circumstances, "workload"> {
  const { batch, newTokens, temperature } = options;
  if (batch === 1) return {};
  return { workload: { lengths: batchLengths(batch, newTokens), greedy: temperature === 0 } };
}

function speed(summary: readonly ModeSummary[], text: ConclusionText): string[] {
  if (summary.length < 2) return [];
  const [best, ...slower] = [...summary].sort((a, b) => a.avgSecondsPerToken - b.avgSecondsPerToken);
  const ties = slower.filter((s) => !toldApart(best!, s));
  const average = formatSeconds(best!.avgSecondsPerToken);
  const lead =
    ties.length === 0
      ? text.fastest(best!.mode, average, isBatch(summary))
      : text.tie(
          [best!, ...ties].map((s) => ({ mode: s.mode, average: formatSeconds(s.avgSecondsPerToken) })),
          Math.min(...summary.map((s) => s.repeats)),
        );
  const losers = slower
    .filter((s) => s.mode !== "none" && toldApart(best!, s))
    .map((s) =>
      text.slower(
        best!.mode,
        s.mode,
        formatFactor(s.avgSecondsPerToken / best!.avgSecondsPerToken),
        isBatch(summary),
      ),
    );
  return [lead, ...losers, ...speedups(summary, text)];
}

function speedups(summary: readonly ModeSummary[], text: ConclusionText): string[] {
  const none = summary.find((s) => s.mode === "none");
  if (none === undefined) return [];
  const others = summary.filter((s) => s !== none && s.speedupOverNone !== null);
  const parts = others.map((s) => ({
    mode: s.mode,
    factor: formatFactor(s.speedupOverNone!),
    withinSpread: !toldApart(none, s),
  }));
  return [text.speedups(parts)];
}

/** What a mode's time goes into: its first token, its growth from step to step, or neither. */
function course(s: ModeSummary, text: ConclusionText): string {
  if (s.earlyDecodeSeconds === null || s.lateDecodeSeconds === null) return text.tooShort(s.mode);
  const early = formatSeconds(s.earlyDecodeSeconds);
  const late = formatSeconds(s.lateDecodeSeconds);
  const factor = s.lateDecodeSeconds / s.earlyDecodeSeconds;
  const grows = factor >= GROWTH_FACTOR;
  const firstCosts = s.firstTokenExcessSeconds >= NOTABLE_SHARE * s.totalSeconds;
  if (grows && (!firstCosts || s.growthExcessSeconds >= s.firstTokenExcessSeconds)) {
    return text.growth(s.mode, early, late, formatFactor(factor));
  }
  if (firstCosts) {
    const share = formatPercent((100 * s.timeToFirstTokenSeconds) / s.totalSeconds);
    return text.firstToken(s.mode, formatSeconds(s.timeToFirstTokenSeconds), share, early, late);
  }
  return text.flat(s.mode, early, late);
}

function kvMemory(summary: readonly ModeSummary[], text: ConclusionText): string[] {
  const caches = summary.filter((s) => s.mode !== "none" && s.kvReservedBytes > 0);
  const sentences = caches.map((s) =>
    text.waste(s.mode, {
      reserved: formatBytes(s.kvReservedBytes),
      used: formatBytes(s.kvUsedBytes),
      wasted: formatBytes(s.kvWastedBytes),
      percent: formatPercent(s.wastePercent),
    }),
  );
  const contiguous = caches.find((s) => s.mode === "contiguous");
  const paged = caches.find((s) => s.mode === "paged");
  if (contiguous === undefined || paged === undefined) return sentences;
  const saved = contiguous.kvReservedBytes - paged.kvReservedBytes;
  if (saved <= 0) return [...sentences, text.nothingSaved(formatBytes(-saved))];
  const percent = formatPercent((100 * saved) / contiguous.kvReservedBytes);
  sentences.push(text.saved(formatBytes(saved), percent));
  if (paged.kvAllocatedBytes > paged.kvReservedBytes) {
    sentences.push(text.pool(formatBytes(paged.kvAllocatedBytes), formatBytes(paged.kvReservedBytes)));
  }
  return sentences;
}

function peakMemory(summary: readonly ModeSummary[], text: ConclusionText): string[] {
  if (summary.length < 2) return [];
  return [text.peaks(summary.map((s) => ({ mode: s.mode, peak: formatBytes(s.peakBytes) })))];
}

function caveats(summary: readonly ModeSummary[], c: Circumstances, text: ConclusionText): string[] {
  const lines: string[] = [];
  if (summary.length > 0) lines.push(text.timing[c.timing]);
  if (c.timing === "pipelined" && summary.length > 1 && summary.some((s) => s.mode === "none"))
    lines.push(text.mixedTiming);
  if (c.software) lines.push(text.software);
  if (summary.length > 0 && summary.every((s) => s.repeats === 1)) lines.push(text.oneRepeat);
  if (c.sameTokens === false) lines.push(text.differentTokens);
  if (c.incomplete !== undefined) lines.push(text.incomplete(c.incomplete));
  return lines;
}
