/** How long requests waited, as cumulative shares. */
import type { EChartsOption } from "echarts";
import {
  type Chart,
  chart,
  common,
  heading,
  type Look,
  legend,
  MARGIN,
  niceCeiling,
  note,
  panelTitle,
  valueAxis,
} from "./chart-parts.ts";
import { percentile } from "./measure.ts";
import type { MeasuredThroughput } from "./throughput.ts";
import {
  line,
  MOST_POINTS,
  PANEL_HEIGHT,
  type Point,
  round,
  secondsAxis,
  TOP,
} from "./throughput-chart-parts.ts";
import { latencySamples } from "./throughput-figures.ts";
import { METRIC_NAMES } from "./throughput-table.ts";
import { formatSeconds, inUnit, timeUnit } from "./units.ts";

/** A longest time so many times the 99th percentile leaves the scale. */
const OFF_SCALE_FACTOR = 3;

/** Cumulative shares: of the requests above, of the times between tokens below. */
export function latencyChart(measured: Pick<MeasuredThroughput, "finished">, look: Look): Chart {
  const samples = latencySamples(measured);
  const panels = [
    { of: "requests", metrics: ["ttft", "e2el"] as const },
    { of: "times between tokens", metrics: ["itl"] as const },
  ].filter((panel) => panel.metrics.some((m) => samples[m].length > 0));
  const colours = { ttft: look.modes.contiguous, e2el: look.modes.paged, itl: look.modes.none };
  const drawn = panels.map(({ of, metrics }, i) => {
    const scale = cumulativeScale(metrics.map((m) => samples[m].map((ms) => ms / 1e3)));
    const top = TOP + i * (PANEL_HEIGHT + 136);
    const series = metrics.map((m) => ({
      ...line(METRIC_NAMES[m], cumulative(samples[m].map((ms) => inUnit(ms / 1e3, scale.unit))), colours[m], {
        step: true,
        dash: m === "e2el" ? "dashed" : "solid",
      }),
      xAxisIndex: i,
      yAxisIndex: i,
    }));
    return { of, metrics, scale, top, series };
  });
  const option: EChartsOption = {
    ...common(look),
    title: [
      heading("Latencies: shares that took at most so long", look),
      ...drawn.map((p) => panelTitle(`% of the ${p.of}`, p.top - 54, look)),
      ...drawn.flatMap((p) => (p.scale.note ? [note(p.scale.note, p.top + PANEL_HEIGHT + 48, look)] : [])),
    ],
    legend: drawn.map((p) => legend(p.top - 32, look, { lines: p.metrics.map((m) => METRIC_NAMES[m]) })),
    grid: drawn.map((p) => ({ left: MARGIN, right: 32, top: p.top, height: PANEL_HEIGHT })),
    xAxis: drawn.map((p, i) => secondsAxis(look, `time (${p.scale.unit.name})`, p.scale.max, i)),
    yAxis: drawn.map((_, i) => valueAxis(look, { gridIndex: i, max: 100 })),
    series: drawn.flatMap((p) => p.series),
  };
  const text = {
    title: "Latencies: shares that took at most so long",
    caption:
      "Above: from a request's submit to its first and to its last token. Below: between one token of a request and its next.",
  };
  const height = drawn.at(-1)!.top + PANEL_HEIGHT + 80;
  return chart(
    "latency",
    text,
    height,
    option,
    drawn.flatMap((p) => p.series.map(() => "%")),
  );
}

/** The unit and end of the axis, in seconds; a note when the longest times are off the scale. */
function cumulativeScale(lines: readonly (readonly number[])[]) {
  const longest = lines.flat().reduce((most, s) => Math.max(most, s), 0);
  const late = Math.max(...lines.map((line) => (line.length > 0 ? percentile(line, 99) : 0)));
  if (longest <= OFF_SCALE_FACTOR * late || late === 0) {
    const unit = timeUnit(longest);
    return { unit, max: niceCeiling(longest / unit.size), note: undefined };
  }
  const unit = timeUnit(late);
  return {
    unit,
    max: niceCeiling((1.2 * late) / unit.size),
    note: `The longest, ${formatSeconds(longest)}, is off the scale.`,
  };
}

/** The share in percent that is at most x, for each value x, or for some of many. */
export function cumulative(values: readonly number[]): Point[] {
  const sorted = Float64Array.from(values).sort();
  const all = Array.from(sorted, (x, i): Point => [x, round((100 * (i + 1)) / sorted.length)]);
  const every = Math.ceil(all.length / MOST_POINTS);
  const first: Point[] = all.length > 0 ? [[all[0]![0], 0]] : [];
  return [...first, ...all.filter((_, i) => i % every === every - 1 || i === all.length - 1)];
}
