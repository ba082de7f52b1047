/** The charts that `bench kv` draws only of a batch: what is kept for its sequences, and the tokens of every step. */
import type { EChartsOption } from "echarts";
import { batchLabels } from "./batch-labels.ts";
import type { BatchSummary } from "./batch-results.ts";
import {
  type Chart,
  chart,
  common,
  heading,
  type Look,
  legend,
  longest,
  MARGIN,
  MODE_DASH,
  panelTitle,
  stepAxis,
  valueAxis,
} from "./chart-parts.ts";
import { type Lang, labels, timedCaption } from "./labels.ts";
import {
  type BenchResults,
  finishedRuns,
  type ModeSummary,
  sequencesOf,
  timingOfRuns,
  tokenRate,
} from "./results.ts";
import { formatBytes, formatCount, formatPercent, inUnit, memoryUnit } from "./units.ts";

/** Pixels of one bar with the space around it. */
const BAR = 40;
/** Pixels left of the bars, for the names of the modes, and right of them, for their figures. */
const NAMES = 110;
const FIGURES = 200;

type Batched = ModeSummary & { batch: BatchSummary };

/** Bars of reserved and used KV memory, and of the sequences that would fit; nothing when no mode keeps keys and values. */
export function batchKvChart(summary: readonly ModeSummary[], lang: Lang, look: Look): Chart[] {
  const caches = summary.filter(
    (s): s is Batched => s.batch !== undefined && s.batch.kvMeanReservedBytes > 0,
  );
  if (caches.length === 0) return [];
  const { modes } = labels(lang);
  const { chart: words, charts } = batchLabels(lang);
  const fits = caches.flatMap((s) => (s.batch.sequencesInContiguousBytes === null ? [] : [s]));
  const unit = memoryUnit(Math.max(...caches.map((s) => s.batch.kvMeanReservedBytes)));
  const height = caches.length * BAR;
  const fitTop = 104 + height + 76;
  const names = (gridIndex: number, of: readonly Batched[]) => ({
    type: "category" as const,
    gridIndex,
    inverse: true,
    data: of.map((s) => modes[s.mode]),
    axisLabel: { color: look.text, fontSize: 13 },
    axisTick: { show: false },
    axisLine: { lineStyle: { color: look.muted } },
  });
  const label = (text: string) => ({
    show: true,
    position: "right" as const,
    color: look.text,
    fontSize: 12,
    formatter: text,
  });
  const bar = { type: "bar" as const, barWidth: 22 };
  const used = {
    ...bar,
    name: words.used,
    stack: "kv",
    color: look.purposes.kv,
    data: caches.map((s) => inUnit(s.batch.kvMeanUsedBytes, unit)),
  };
  const wasted = {
    ...bar,
    name: words.wasted,
    stack: "kv",
    color: look.gridLine,
    itemStyle: { borderColor: look.muted, borderWidth: 1 },
    data: caches.map(({ batch }) => ({
      value: inUnit(batch.kvMeanReservedBytes - batch.kvMeanUsedBytes, unit),
      label: label(
        `${formatBytes(batch.kvMeanReservedBytes)} · ${words.wasted} ${formatPercent(batch.meanWastePercent)}`,
      ),
    })),
  };
  const fit = {
    ...bar,
    name: words.fit,
    xAxisIndex: 1,
    yAxisIndex: 1,
    color: look.muted,
    data: fits.map((s) => ({
      value: s.batch.sequencesInContiguousBytes!,
      itemStyle: { color: look.modes[s.mode] },
      label: label(formatCount(s.batch.sequencesInContiguousBytes!)),
    })),
  };
  const hasFit = fits.length > 0;
  const option: EChartsOption = {
    ...common(look),
    title: [
      heading(charts.kv.title, look),
      panelTitle(`${words.memory} (${unit.name})`, 46, look),
      ...(hasFit ? [panelTitle(words.fit, fitTop - 28, look)] : []),
    ],
    legend: legend(70, look, { areas: [words.used, words.wasted] }),
    grid: [
      { left: NAMES, right: FIGURES, top: 104, height },
      ...(hasFit ? [{ left: NAMES, right: FIGURES, top: fitTop, height: fits.length * BAR }] : []),
    ],
    xAxis: [valueAxis(look), ...(hasFit ? [valueAxis(look, { gridIndex: 1 })] : [])],
    yAxis: [names(0, caches), ...(hasFit ? [names(1, fits)] : [])],
    series: hasFit ? [used, wasted, fit] : [used, wasted],
  };
  const units = [unit.name, unit.name, ...(hasFit ? [""] : [])];
  return [
    chart("batch-kv", charts.kv, (hasFit ? fitTop + fits.length * BAR : 104 + height) + 40, option, units),
  ];
}

/** Tokens of all sequences by the time of the step, and how many sequences ran. */
export function batchRateChart(results: BenchResults, lang: Lang, look: Look): Chart {
  const text = labels(lang);
  const { chart: words, charts } = batchLabels(lang);
  const runs = results.summary.map((s) => finishedRuns(results.runs, s.mode)[0]!);
  const steps = longest(runs);
  const most = runs.reduce((a, b) => (b.steps.length > a.steps.length ? b : a));
  const rates = runs.map((r) => ({
    name: text.modes[r.mode],
    type: "line" as const,
    color: look.modes[r.mode],
    symbol: "none",
    lineStyle: { width: 1.8, type: MODE_DASH[r.mode] },
    data: r.steps.map((s) => Number(tokenRate(s).toPrecision(5))),
  }));
  const running = {
    name: words.running,
    type: "line" as const,
    xAxisIndex: 1,
    yAxisIndex: 1,
    color: look.muted,
    symbol: "none",
    step: "middle" as const,
    areaStyle: { opacity: 0.2 },
    data: most.steps.map(sequencesOf),
  };
  const option: EChartsOption = {
    ...common(look),
    title: [
      heading(charts.rate.title, look),
      panelTitle(words.rate, 46, look),
      panelTitle(words.running, 388, look),
    ],
    legend: legend(68, look, { lines: runs.map((r) => text.modes[r.mode]) }),
    grid: [
      { left: MARGIN, right: 32, top: 100, height: 220 },
      { left: MARGIN, right: 32, top: 416, height: 90 },
    ],
    xAxis: [stepAxis(steps, text.chart.step, look), stepAxis(steps, text.chart.step, look, 1)],
    yAxis: [valueAxis(look), { ...valueAxis(look, { gridIndex: 1 }), minInterval: 1, splitNumber: 3 }],
    series: [...rates, running],
  };
  const { title, caption } = charts.rate;
  return chart(
    "batch-rate",
    { title, caption: timedCaption(caption, timingOfRuns(runs), text) },
    560,
    option,
    [...rates.map(() => ""), ""],
  );
}
