/** Charts of the raw figures, with the steps of all modes in one plot. */
import type { EChartsOption } from "echarts";
import { batchLabels, isBatch } from "./batch-labels.ts";
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
  MODE_DASH,
  note,
  panelTitle,
  stepAxis,
  valueAxis,
} from "./chart-parts.ts";
import { type Lang, labels, timedCaption } from "./labels.ts";
import { type BenchResults, finishedRuns, type RunResult, timingOfRuns } from "./results.ts";
import { formatSeconds, inUnit, memoryUnit, type Unit } from "./units.ts";

/** Every step of every repeat of every mode. */
export function rawLatencyChart(results: BenchResults, lang: Lang, look: Look): Chart {
  const text = labels(lang);
  const { modes, charts, chart: words } = text;
  const runs = finishedRuns(results.runs);
  const scale = latencyScale(runs.map((r) => r.steps.map((s) => s.seconds)));
  const present = results.summary.map((s) => s.mode);
  const prefills = `${words.prefill} · ${results.summary
    .map((s) => `${modes[s.mode]} ${formatSeconds(s.timeToFirstTokenSeconds)}`)
    .join(" · ")}${scale.max === undefined ? "" : ` (${words.offScale})`}`;
  const option: EChartsOption = {
    ...common(look),
    title: [
      heading(charts.rawLatency.title, look),
      panelTitle(`${words.latencyAxis} (${scale.unit.name})`, 46, look),
      note(prefills, 66, look),
    ],
    legend: legend(86, look, { lines: present.map((m) => modes[m]) }),
    grid: { left: MARGIN, right: 32, top: 120, bottom: 56 },
    xAxis: stepAxis(longest(runs), words.step, look),
    yAxis: valueAxis(look, scale.max === undefined ? {} : { max: scale.max }),
    series: runs.map((r) => ({
      name: modes[r.mode],
      type: "line" as const,
      color: look.modes[r.mode],
      symbol: "none",
      lineStyle: { width: 1.8, type: MODE_DASH[r.mode], opacity: r.repeat === 1 ? 1 : 0.5 },
      data: r.steps.map((s) => inUnit(s.seconds, scale.unit)),
    })),
  };
  const { title, caption } = charts.rawLatency;
  return chart(
    "raw-latency",
    { title, caption: timedCaption(caption, timingOfRuns(runs), text) },
    456,
    option,
    runs.map(() => scale.unit.name),
  );
}

/** KV bytes of each caching mode on one scale, and the paged cache close up; nothing when only mode none ran. */
export function rawKvCharts(results: BenchResults, lang: Lang, look: Look): Chart[] {
  const { modes, charts, chart: words } = labels(lang);
  const runs = (["contiguous", "paged"] as const).flatMap((mode) =>
    finishedRuns(results.runs, mode).slice(0, 1),
  );
  if (runs.length === 0) return [];
  const panels = runs.length === 2 ? [runs, runs.slice(1)] : [runs];
  const units = panels.map((panel) =>
    memoryUnit(Math.max(...panel.flatMap((r) => r.steps.map((s) => s.kvReservedBytes)))),
  );
  const lines = panels.flatMap((panel, i) =>
    panel.flatMap((r) => kvLines(r, units[i]!, i, `${modes[r.mode]} · `, words, look)),
  );
  const steps = longest(runs);
  const tops = [100, 440];
  const option: EChartsOption = {
    ...common(look),
    title: [
      heading(charts.rawKv.title, look),
      ...panels.map((_, i) =>
        panelTitle(
          `${i === 0 ? words.kvAll : words.kvPaged} (${units[i]!.name})`,
          tops[i]! - (i === 0 ? 54 : 32),
          look,
        ),
      ),
    ],
    legend: legend(68, look, {
      lines: runs.flatMap((r) => [words.reserved, words.used].map((what) => `${modes[r.mode]} · ${what}`)),
    }),
    grid: panels.map((_, i) => ({ left: MARGIN, right: 32, top: tops[i]!, height: 250 })),
    xAxis: panels.map((_, i) => stepAxis(steps, words.step, look, i)),
    yAxis: panels.map((_, i) => valueAxis(look, { gridIndex: i })),
    series: lines,
  };
  const lineUnits = panels.flatMap((panel, i) => panel.flatMap(() => [units[i]!.name, units[i]!.name]));
  const { title, caption } = charts.rawKv;
  const stairs = isBatch(results.summary) ? batchLabels(lang).stairs : "";
  const space = stairs !== "" && lang === "en" ? " " : "";
  return [
    chart(
      "raw-kv",
      { title, caption: caption + space + stairs },
      panels.length === 2 ? 750 : 410,
      option,
      lineUnits,
    ),
  ];
}

function kvLines(
  run: RunResult,
  unit: Unit,
  panel: number,
  prefix: string,
  words: { reserved: string; used: string },
  look: Look,
) {
  const line = (name: string, opacity: number, dash: "solid" | "dotted", data: number[]) => ({
    name: prefix + name,
    type: "line" as const,
    xAxisIndex: panel,
    yAxisIndex: panel,
    color: look.modes[run.mode],
    symbol: "none",
    step: "middle" as const,
    lineStyle: { width: 2, type: dash },
    areaStyle: { opacity },
    data,
  });
  return [
    line(
      words.reserved,
      0.12,
      "solid",
      run.steps.map((s) => inUnit(s.kvReservedBytes, unit)),
    ),
    line(
      words.used,
      0.3,
      "dotted",
      run.steps.map((s) => inUnit(s.kvUsedBytes, unit)),
    ),
  ];
}
