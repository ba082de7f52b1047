/** The charts of a throughput experiment as echarts options: records in, plain JSON out; chart-svg.ts draws them. */
import type { EChartsOption } from "echarts";
import {
  type Chart,
  chart,
  common,
  heading,
  type Look,
  legend,
  MARGIN,
  panelTitle,
  valueAxis,
} from "./chart-parts.ts";
import type { MeasuredThroughput, TimedStep } from "./throughput.ts";
import {
  line,
  MOST_POINTS,
  PANEL_HEIGHT,
  type Point,
  round,
  secondsAxis,
  TOP,
} from "./throughput-chart-parts.ts";
import { latencyChart } from "./throughput-latency-chart.ts";
import { formatCount } from "./units.ts";

type Drawn = Pick<MeasuredThroughput, "steps" | "finished" | "duration">;
/** Stretches of equal time that a rate is taken over. */
const RATE_BINS = 120;
/** What is closer together is one time. */
const MICROSECOND = 1e-6;

/** All charts, in the order of the report; none without a step. */
export function throughputCharts(measured: Drawn, look: Look): Chart[] {
  if (measured.steps.length === 0) return [];
  return [
    tokensChart(measured, look),
    loadChart(measured, look),
    kvChart(measured, look),
    ...(measured.finished.length > 0 ? [latencyChart(measured, look)] : []),
  ];
}

/** The stems of all charts that there may be. */
export const THROUGHPUT_CHARTS = ["tokens", "load", "kv", "latency"] as const;

/** Amounts a second over time: each step's amount is spread over the step's own seconds, then summed in equal bins up to `duration`. */
export function rateOverTime(
  steps: readonly TimedStep[],
  amount: (step: TimedStep) => number,
  duration: number,
  bins = RATE_BINS,
): Point[] {
  const width = duration / bins;
  const sums = new Float64Array(bins);
  for (const step of steps) {
    const begin = Math.max(0, step.time - step.seconds);
    const seconds = Math.max(step.time - begin, Number.EPSILON);
    const last = Math.min(bins - 1, Math.floor(step.time / width));
    for (let bin = Math.min(last, Math.floor(begin / width)); bin <= last; bin++) {
      const overlap = Math.min(step.time, (bin + 1) * width) - Math.max(begin, bin * width);
      sums[bin]! += amount(step) * Math.min(1, Math.max(0, overlap / seconds));
    }
  }
  return Array.from(sums, (sum, bin): Point => [round((bin + 0.5) * width), round(sum / width)]);
}

function tokensChart({ steps, duration }: Drawn, look: Look): Chart {
  const output = rateOverTime(steps, (s) => s.sampled, duration);
  const all = rateOverTime(steps, (s) => s.tokens, duration);
  const text = {
    title: "Throughput over time",
    caption:
      "Computed: every token that went through the model, of prompts and of answers, those computed again too. Output: new tokens of the " +
      "answers. Where the two part, prompts are computed.",
  };
  const lines = [
    line("computed", all, look.modes.contiguous, { area: 0.12 }),
    line("output", output, look.modes.paged, { area: 0.25 }),
  ];
  return timeChart("tokens", text, "tokens per second", lines, ["tokens/s", "tokens/s"], look, duration);
}

function loadChart({ steps, duration }: Drawn, look: Look): Chart {
  const text = {
    title: "Requests: running and waiting",
    caption: "In each step: requests that hold keys and values, and those that wait for their turn.",
  };
  const running = heldOverTime(steps, (s) => s.running);
  const waiting = heldOverTime(steps, (s) => s.waiting);
  const lines = [
    line("running", running, look.modes.paged, { area: 0.2, step: true }),
    line("waiting", waiting, look.modes.none, { step: true, dash: "dashed" }),
  ];
  return timeChart("load", text, "requests", lines, ["", ""], look, duration);
}

function kvChart({ steps, duration }: Drawn, look: Look): Chart {
  const share = (slots: (kv: TimedStep["kv"]) => number) =>
    heldOverTime(steps, ({ kv }) => (kv.total > 0 ? (100 * slots(kv)) / kv.total : 0));
  const reserved = share((kv) => kv.reserved);
  const used = share((kv) => kv.used);
  const logical = share((kv) => kv.logical);
  const shared = steps.some((s) => s.kv.logical > s.kv.used);
  const text = {
    title: "Keys and values: slots reserved and used",
    caption:
      "The gap between reserved and used is the waste: slots that a sequence holds and no token has." +
      (shared
        ? " Without sharing: what the same sequences would use if each had its prefix for itself."
        : ""),
  };
  const lines = [
    line("reserved", reserved, look.modes.contiguous, { area: 0.12, step: true }),
    line("used", used, look.modes.paged, { area: 0.3, step: true, dash: "dotted" }),
    ...(shared ? [line("without sharing", logical, look.modes.none, { step: true, dash: "dashed" })] : []),
  ];
  const axis = `% of ${formatCount(steps[0]!.kv.total)} slots`;
  const units = lines.map(() => "%");
  return timeChart("kv", text, axis, lines, units, look, duration);
}

/**
 * What a value was over time, for a line in steps: a point at the beginning of each step, whose value holds up to the next point, 0
 * where nothing ran, and the last value again at the end. Of many steps so many in succession are one that at most `most` are
 * left, with their largest value, so that no peak is lost.
 */
export function heldOverTime(
  steps: readonly TimedStep[],
  value: (step: TimedStep) => number,
  most = MOST_POINTS,
): Point[] {
  const points: Point[] = [];
  const each = Math.ceil(steps.length / most);
  let end = 0;
  for (let i = 0; i < steps.length; i += each) {
    const group = steps.slice(i, i + each);
    const begin = Math.max(end, group[0]!.time - group[0]!.seconds);
    if (begin > end + MICROSECOND) points.push([round(end), 0]);
    points.push([round(begin), round(Math.max(...group.map(value)))]);
    end = group.at(-1)!.time;
  }
  return points.length > 0 ? [...points, [round(end), points.at(-1)![1]]] : [];
}

function timeChart(
  id: string,
  text: { title: string; caption: string },
  axis: string,
  lines: ReturnType<typeof line>[],
  units: string[],
  look: Look,
  duration: number,
): Chart {
  const option: EChartsOption = {
    ...common(look),
    title: [heading(text.title, look), panelTitle(axis, TOP - 54, look)],
    legend: legend(TOP - 32, look, { lines: lines.map((l) => l.name) }),
    grid: { left: MARGIN, right: 32, top: TOP, height: PANEL_HEIGHT },
    // The end is no round number.
    xAxis: {
      ...secondsAxis(look, "time (s)", duration),
      axisLabel: { color: look.muted, showMaxLabel: false },
    },
    yAxis: valueAxis(look),
    series: lines,
  };
  return chart(id, text, TOP + PANEL_HEIGHT + 56, option, units);
}
