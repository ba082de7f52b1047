/**
 * The charts of a KV experiment as echarts options: figures in, plain JSON out, no drawing. chart-svg.ts draws them to files and
 * the report draws them live, from the same options.
 */
import type { EChartsOption } from "echarts";
import { batchKvChart, batchRateChart } from "./batch-charts.ts";
import { batchLabels, isBatch, rowLabels } from "./batch-labels.ts";
import { type Chart, chart, common, heading, type Look, legend, MARGIN, valueAxis } from "./chart-parts.ts";
import { type Lang, labels } from "./labels.ts";
import { modeChart } from "./mode-chart.ts";
import type { BenchResults, ModeSummary } from "./results.ts";
import { rawKvCharts, rawLatencyChart } from "./step-charts.ts";
import { formatBytes, formatSeconds, inUnit, memoryUnit, timeUnit } from "./units.ts";

/**
 * All charts, in the order of the report: side by side, normalised, raw latency, raw KV, then one for each mode; of a batch also
 * what it keeps, after the normalised figures, and its tokens, after the latency.
 */
export function kvCharts(results: BenchResults, lang: Lang, look: Look): Chart[] {
  if (results.summary.length === 0) return [];
  return [
    modesChart(results.summary, lang, look),
    normalisedChart(results.summary, lang, look),
    ...batchKvChart(results.summary, lang, look),
    rawLatencyChart(results, lang, look),
    ...(isBatch(results.summary) ? [batchRateChart(results, lang, look)] : []),
    ...rawKvCharts(results, lang, look),
    ...results.summary.map((s) => modeChart(results, s.mode, lang, look)),
  ];
}

function modesChart(summary: readonly ModeSummary[], lang: Lang, look: Look): Chart {
  const { modes, charts } = labels(lang);
  const rows = rowLabels(summary, lang);
  const time = timeUnit(Math.max(...summary.map((s) => s.avgSecondsPerToken)));
  const memory = memoryUnit(Math.max(...summary.map((s) => s.peakBytes)));
  const names = summary.map((s) =>
    [modes[s.mode], formatSeconds(s.avgSecondsPerToken, time), formatBytes(s.peakBytes, memory)].join("\n"),
  );
  const latencyName = `${rows.average} (${time.name})`;
  const memoryName = `${rows.peak} (${memory.name})`;
  const option: EChartsOption = {
    ...common(look),
    title: heading(charts.modes.title, look),
    legend: legend(46, look, { areas: [latencyName], lines: [memoryName] }),
    grid: { left: MARGIN, right: MARGIN, top: 84, bottom: 72 },
    xAxis: {
      type: "category",
      data: names,
      axisLabel: { color: look.text, fontSize: 13, lineHeight: 19, interval: 0 },
      axisTick: { show: false },
      axisLine: { lineStyle: { color: look.muted } },
    },
    yAxis: [valueAxis(look), valueAxis(look, { position: "right" })],
    series: [
      {
        name: latencyName,
        type: "bar",
        barMaxWidth: 110,
        color: look.muted,
        data: summary.map((s) => ({
          value: inUnit(s.avgSecondsPerToken, time),
          itemStyle: { color: look.modes[s.mode] },
        })),
      },
      {
        name: memoryName,
        type: "line",
        yAxisIndex: 1,
        color: look.text,
        symbol: "circle",
        symbolSize: 9,
        data: summary.map((s) => inUnit(s.peakBytes, memory)),
      },
    ],
  };
  return chart("modes", charts.modes, 420, option, [time.name, memory.name]);
}

function normalisedChart(summary: readonly ModeSummary[], lang: Lang, look: Look): Chart {
  const { modes, charts, chart: words } = labels(lang);
  const rows = rowLabels(summary, lang);
  const batchRows = batchLabels(lang).rows;
  const kvFigures: [string, (s: ModeSummary) => number][] = isBatch(summary)
    ? [
        [batchRows.kvReservedMean, (s) => s.batch?.kvMeanReservedBytes ?? 0],
        [
          batchRows.kvWastedMean,
          (s) => (s.batch ? s.batch.kvMeanReservedBytes - s.batch.kvMeanUsedBytes : 0),
        ],
      ]
    : [
        [rows.kvReserved, (s) => s.kvReservedBytes],
        [rows.kvWasted, (s) => s.kvWastedBytes],
      ];
  const figures: [string, (s: ModeSummary) => number][] = [
    [rows.average, (s) => s.avgSecondsPerToken],
    [rows.p95, (s) => s.p95SecondsPerToken],
    [rows.firstToken, (s) => s.timeToFirstTokenSeconds],
    [rows.total, (s) => s.totalSeconds],
    [rows.peak, (s) => s.peakBytes],
    ...kvFigures,
  ];
  const share = (figure: (s: ModeSummary) => number, s: ModeSummary) =>
    Number((figure(s) / (Math.max(...summary.map(figure)) || 1)).toFixed(3));
  const option: EChartsOption = {
    ...common(look),
    title: heading(charts.normalised.title, look),
    legend: legend(46, look, { areas: summary.map((s) => modes[s.mode]) }),
    grid: { left: 190, right: 60, top: 78, bottom: 52 },
    xAxis: {
      ...valueAxis(look, { max: 1 }),
      name: words.relative,
      nameLocation: "middle",
      nameGap: 28,
      nameTextStyle: { color: look.muted, fontSize: 12 },
    },
    yAxis: {
      type: "category",
      inverse: true,
      data: figures.map(([name]) => name),
      axisLabel: { color: look.text, fontSize: 12, interval: 0 },
      axisTick: { show: false },
      axisLine: { lineStyle: { color: look.muted } },
    },
    series: summary.map((s) => ({
      name: modes[s.mode],
      type: "bar" as const,
      color: look.modes[s.mode],
      barGap: "10%",
      barCategoryGap: "26%",
      label: { show: true, position: "right" as const, color: look.text, fontSize: 11 },
      data: figures.map(([, figure]) => share(figure, s)),
    })),
  };
  return chart("normalised", charts.normalised, 102 + figures.length * (18 + 16 * summary.length), option, [
    ...summary.map(() => ""),
  ]);
}
