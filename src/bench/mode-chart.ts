/** The chart of one mode: latency above, memory by purpose below, over the same steps. */
import type { EChartsOption } from "echarts";
import { PURPOSES } from "../gpu/memory.ts";
import type { CacheMode } from "../kv/cache.ts";
import {
  type Chart,
  chart,
  common,
  heading,
  type Look,
  latencyScale,
  legend,
  longest,
  MARGIN,
  panelTitle,
  stepAxis,
  valueAxis,
} from "./chart-parts.ts";
import { type Lang, labels, timedCaption } from "./labels.ts";
import { mean } from "./measure.ts";
import { type BenchResults, finishedRuns, type RunResult, timingOfRuns } from "./results.ts";
import { formatSeconds, inUnit, memoryUnit, type Unit } from "./units.ts";

/** More steps than this are drawn without a dot for each. */
const MAX_DOTS = 60;
const LATENCY_TOP = 100;
const LATENCY_HEIGHT = 220;
const MEMORY_TOP = LATENCY_TOP + LATENCY_HEIGHT + 112;
const MEMORY_HEIGHT = 220;

export function modeChart(results: BenchResults, mode: CacheMode, lang: Lang, look: Look): Chart {
  const text = labels(lang);
  const words = text.chart;
  const title = text.modeChart.title(text.modes[mode]);
  const runs = finishedRuns(results.runs, mode);
  const steps = longest(runs);
  const latency = latencySeries(runs, steps, look, words);
  const memory = memorySeries(runs[0]!, look, text);
  const option: EChartsOption = {
    ...common(look),
    title: [
      heading(title, look),
      panelTitle(`${words.latency} (${latency.unit.name})`, LATENCY_TOP - 54, look),
      panelTitle(`${words.memory} (${memory.unit.name})`, MEMORY_TOP - 54, look),
    ],
    legend: [
      legend(LATENCY_TOP - 32, look, {
        areas: runs.length > 1 ? [words.range] : [],
        lines: [words.latency],
      }),
      legend(MEMORY_TOP - 32, look, {
        areas: PURPOSES.map((p) => text.purposes[p]),
        lines: [words.peakOfStep],
      }),
    ],
    grid: [
      { left: MARGIN, right: 32, top: LATENCY_TOP, height: LATENCY_HEIGHT },
      { left: MARGIN, right: 32, top: MEMORY_TOP, height: MEMORY_HEIGHT },
    ],
    xAxis: [stepAxis(steps, words.step, look), stepAxis(steps, words.step, look, 1)],
    yAxis: [
      valueAxis(look, latency.max === undefined ? {} : { max: latency.max }),
      valueAxis(look, { gridIndex: 1 }),
    ],
    series: [...latency.series, ...memory.series],
  };
  const units = [
    ...latency.series.map(() => latency.unit.name),
    ...memory.series.map(() => memory.unit.name),
  ];
  const height = MEMORY_TOP + MEMORY_HEIGHT + 56;
  const caption = timedCaption(text.modeChart.caption, timingOfRuns(runs), text);
  return chart(`mode-${mode}`, { title, caption }, height, option, units);
}

/** The mean of the repeats with the prefill marked, and the band from the fastest to the slowest repeat when there are several. */
function latencySeries(
  runs: readonly RunResult[],
  steps: number,
  look: Look,
  words: { latency: string; range: string; prefill: string; offScale: string },
) {
  const mode = runs[0]!.mode;
  const columns = Array.from({ length: steps }, (_, i) =>
    runs.flatMap((r) => (r.steps[i] === undefined ? [] : [r.steps[i].seconds])),
  );
  const means = columns.map(mean);
  const scale = latencyScale([means]);
  const first = inUnit(means[0]!, scale.unit);
  const offScale = scale.max !== undefined;
  const line = {
    name: words.latency,
    type: "line" as const,
    color: look.modes[mode],
    symbol: "circle",
    symbolSize: 4,
    showSymbol: steps <= MAX_DOTS,
    lineStyle: { width: 2 },
    data: means.map((value) => inUnit(value, scale.unit)),
    markPoint: {
      symbol: offScale ? "triangle" : "circle",
      symbolSize: 10,
      data: [{ name: words.prefill, coord: [0, scale.max ?? first] as [number, number] }],
      label: {
        show: true,
        position: "right" as const,
        offset: [4, offScale ? 6 : -12] as [number, number],
        formatter: `${words.prefill} ${formatSeconds(means[0]!)}${offScale ? ` (${words.offScale})` : ""}`,
        color: look.text,
        backgroundColor: look.background,
        padding: 2,
      },
    },
  };
  if (runs.length === 1) return { ...scale, series: [line] };
  const low = columns.map((c) => inUnit(Math.min(...c), scale.unit));
  const high = columns.map((c) => inUnit(Math.max(...c), scale.unit));
  const edge = {
    type: "line" as const,
    stack: "range",
    color: look.modes[mode],
    symbol: "none",
    lineStyle: { opacity: 0 },
    tooltip: { show: false },
  };
  const band = [
    { ...edge, name: "", data: low },
    {
      ...edge,
      name: words.range,
      data: high.map((h, i) => h - low[i]!),
      areaStyle: { opacity: 0.25 },
      itemStyle: { opacity: 0.4 },
    },
  ];
  return { ...scale, series: [line, ...band] };
}

/** Areas stacked by purpose after each step, and the peak within the step as a line; of the first repeat. */
function memorySeries(run: RunResult, look: Look, text: ReturnType<typeof labels>) {
  const unit: Unit = memoryUnit(Math.max(...run.steps.map((s) => s.gpuPeakBytes)));
  const panel = { type: "line" as const, xAxisIndex: 1, yAxisIndex: 1, symbol: "none" };
  const areas = PURPOSES.map((purpose) => ({
    ...panel,
    name: text.purposes[purpose],
    stack: "memory",
    color: look.purposes[purpose],
    lineStyle: { width: 0 },
    areaStyle: { opacity: 0.85 },
    data: run.steps.map((s) => inUnit(s.memoryByPurpose[purpose], unit)),
  }));
  const peak = {
    ...panel,
    name: text.chart.peakOfStep,
    color: look.text,
    lineStyle: { width: 1.5, type: "dashed" as const },
    data: run.steps.map((s) => inUnit(s.gpuPeakBytes, unit)),
  };
  return { unit, series: [...areas, peak] };
}
