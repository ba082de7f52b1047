/** The charts of the capacity experiment as echarts options: figures in, plain JSON out; chart-svg.ts draws them. */
import type { EChartsOption } from "echarts";
import { layoutName, MIX_NAMES, type Mix } from "./capacity-cases.ts";
import { type CapacityResults, type CapacityRow, type FiguredRow, rowsOf } from "./capacity-results.ts";
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
import { formatCount } from "./units.ts";

/** Pixels: space for layouts' names at the left, one bar, the space between rows. */
const LEFT = 180;
const BAR = 15;
const ROW_GAP = 10;
const TOP = 84;
const PANEL = { top: 122, height: 120, between: 74 };

/** All charts, in the order of the report. */
export function capacityCharts(results: CapacityResults, look: Look): Chart[] {
  const mixes = results.mixes.map((m) => m.mix).filter((mix) => rowsOf(results, mix).length > 0);
  if (mixes.length === 0) return [];
  const measured = results.rows.filter((r) => r.measured !== null);
  return [
    sequencesChart(results, mixes, look),
    ...mixes.map((mix) => memoryChart(results, mix, look)),
    ...mixes.map((mix) => timelineChart(results, mix, look)),
    ...(measured.length > 0 ? [throughputChart(results, mixes, look)] : []),
  ];
}

/** The stems of all charts that an experiment may have. */
export function capacityChartIds(mixes: readonly Mix[]): string[] {
  return [
    "sequences",
    ...mixes.map((m) => `memory-${m}`),
    ...mixes.map((m) => `timeline-${m}`),
    "throughput",
  ];
}

function mixColour(mix: Mix, look: Look): string {
  return mix === "lognormal" ? look.modes.paged : look.purposes.kv;
}

/** Horizontal bars, a row for each name and in it a bar for each mix. */
function grouped(
  names: readonly string[],
  mixes: readonly Mix[],
  value: (name: string, mix: Mix) => number | null,
  look: Look,
) {
  const height = names.length * (mixes.length * BAR + ROW_GAP);
  return {
    height: TOP + height + 40,
    grid: { left: LEFT, right: 90, top: TOP, height },
    yAxis: nameAxis(names, look),
    series: mixes.map((mix) => ({
      name: MIX_NAMES[mix],
      type: "bar" as const,
      color: mixColour(mix, look),
      barWidth: BAR - 2,
      barGap: "15%",
      label: { show: true, position: "right" as const, color: look.text, fontSize: 11 },
      data: names.map((name) => value(name, mix)),
    })),
  };
}

function nameAxis(names: readonly string[], look: Look) {
  return {
    type: "category" as const,
    inverse: true,
    data: [...names],
    axisLabel: { color: look.text, fontSize: 12, interval: 0 },
    axisTick: { show: false },
    axisLine: { lineStyle: { color: look.muted } },
  };
}

function namesOf(rows: readonly CapacityRow[]): string[] {
  return [...new Set(rows.map(layoutName))];
}

function sequencesChart(results: CapacityResults, mixes: readonly Mix[], look: Look): Chart {
  const title = "Sequences at once in the same memory";
  const names = namesOf(mixes.flatMap((mix) => rowsOf(results, mix)));
  const bars = grouped(
    names,
    mixes,
    (name, mix) => {
      const row = rowsOf(results, mix).find((r) => layoutName(r) === name);
      return row ? Number(row.simulated.meanSequences.toFixed(1)) : null;
    },
    look,
  );
  const option: EChartsOption = {
    ...common(look),
    title: heading(title, look),
    legend: legend(46, look, { areas: mixes.map((m) => MIX_NAMES[m]) }),
    grid: bars.grid,
    xAxis: valueAxis(look),
    yAxis: bars.yAxis,
    series: bars.series,
  };
  const caption = `Mean over the steps in which requests wait for memory; ${formatCount(results.options.kvTokens)} slots for all layouts.`;
  return chart(
    "sequences",
    { title, caption },
    bars.height,
    option,
    mixes.map(() => ""),
  );
}

/** Where the memory goes while requests wait, as shares of the budget. */
function memoryChart(results: CapacityResults, mix: Mix, look: Look): Chart {
  const title = `Where the memory goes: ${MIX_NAMES[mix].toLowerCase()}`;
  const rows = rowsOf(results, mix);
  const { kvTokens } = results.options;
  const share = (tokens: number) => Number(((100 * tokens) / kvTokens).toFixed(1));
  const parts: [name: string, colour: string, of: (r: FiguredRow) => number][] = [
    ["tokens", look.modes.paged, (r) => r.simulated.meanUsed],
    ["reserved, not used", look.modes.none, (r) => r.simulated.meanInternal],
    ["free, the next does not fit", look.purposes.kv, (r) => r.simulated.meanExternal],
    [
      "not needed, or not handed out",
      look.gridLine,
      (r) => kvTokens - r.simulated.meanReserved - r.simulated.meanExternal,
    ],
  ];
  const height = rows.length * (BAR + 4 + ROW_GAP);
  const option: EChartsOption = {
    ...common(look),
    title: heading(title, look),
    legend: legend(46, look, { areas: parts.map(([name]) => name) }),
    grid: { left: LEFT, right: 60, top: TOP, height },
    xAxis: {
      ...valueAxis(look, { max: 100 }),
      axisLabel: { color: look.muted, formatter: "{value} %" },
    },
    yAxis: nameAxis(rows.map(layoutName), look),
    series: parts.map(([name, color, of]) => ({
      name,
      type: "bar" as const,
      stack: "memory",
      color,
      barWidth: BAR + 4,
      label: {
        show: true,
        color: look.name === "dark" ? "#0d1013" : "#ffffff",
        fontSize: 11,
        // A number that its piece has no room for would hide the next one.
        formatter: "",
      },
      data: rows.map((r) => {
        const value = Math.max(0, share(of(r)));
        return value >= 6 && name !== "not needed, or not handed out"
          ? { value, label: { formatter: `${value.toFixed(1)} %` } }
          : value;
      }),
    })),
  };
  const caption =
    "Shares of the budget, mean over the steps in which requests wait for memory. With shared prefixes a slot that several use counts once.";
  return chart(
    `memory-${mix}`,
    { title, caption },
    TOP + height + 40,
    option,
    parts.map(() => "%"),
  );
}

/** Reserved and used over the steps, a panel for each of a few layouts on one axis of steps. */
function timelineChart(results: CapacityResults, mix: Mix, look: Look): Chart {
  const title = `Reserved and used, step by step: ${MIX_NAMES[mix].toLowerCase()}`;
  const rows = panelRows(rowsOf(results, mix));
  const steps = Math.max(...rows.map((r) => r.simulated.steps));
  const { kvTokens } = results.options;
  const tops = rows.map((_, i) => PANEL.top + i * (PANEL.height + PANEL.between));
  const colours = { reserved: look.modes.none, used: look.modes.paged };
  const line = (row: FiguredRow, panel: number, name: "reserved" | "used") => ({
    name,
    type: "line" as const,
    xAxisIndex: panel,
    yAxisIndex: panel,
    color: colours[name],
    symbol: "none",
    step: "end" as const,
    lineStyle: { width: 1.5 },
    areaStyle: { opacity: name === "used" ? 0.55 : 0.25 },
    data: row.timeline!.step.map((step, i) => [step + 1, row.timeline![name][i]!]),
  });
  const option: EChartsOption = {
    ...common(look),
    title: [
      heading(title, look),
      ...rows.map((row, i) =>
        panelTitle(
          `${layoutName(row)}: ${formatCount(kvTokens)} slots, ${formatCount(row.simulated.steps)} steps`,
          tops[i]! - 34,
          look,
        ),
      ),
    ],
    legend: legend(46, look, { areas: ["reserved", "used"] }),
    grid: tops.map((top) => ({ left: MARGIN, right: 32, top, height: PANEL.height })),
    xAxis: rows.map((_, i) => ({
      type: "value" as const,
      gridIndex: i,
      min: 0,
      max: steps,
      splitLine: { show: false },
      axisLabel: { color: look.muted },
      axisLine: { lineStyle: { color: look.muted } },
      ...(i === rows.length - 1
        ? {
            name: "step",
            nameLocation: "middle" as const,
            nameGap: 26,
            nameTextStyle: { color: look.muted, fontSize: 12 },
          }
        : {}),
    })),
    yAxis: rows.map((_, i) => valueAxis(look, { gridIndex: i, max: kvTokens })),
    series: rows.flatMap((row, i) => [line(row, i, "reserved"), line(row, i, "used")]),
  };
  const caption =
    "Slots that sequences hold and slots with a token; the gap between them is waste, the gap to the top is free. A run that holds more at once ends sooner.";
  const height = tops.at(-1)! + PANEL.height + 56;
  return chart(
    `timeline-${mix}`,
    { title, caption },
    height,
    option,
    rows.flatMap(() => ["slots", "slots"]),
  );
}

/** Both kinds of strips, and the usual pages without and, where prompts begin alike, with sharing. */
function panelRows(rows: readonly FiguredRow[]): FiguredRow[] {
  const sizes = rows.filter((r) => r.layout === "pages").map((r) => r.pageSize);
  const size = sizes.includes(16) ? 16 : sizes[0];
  const isOther = (r: FiguredRow) => !r.prefixCache || r.simulated.prefixHits > 0;
  return rows.filter((r) => r.layout !== "pages" || (r.pageSize === size && isOther(r)));
}

function throughputChart(results: CapacityResults, mixes: readonly Mix[], look: Look): Chart {
  const title = "New tokens per second on the engine";
  const names = namesOf(results.rows.filter((r) => r.measured !== null));
  const bars = grouped(
    names,
    mixes,
    (name, mix) => {
      const row = results.rows.find((r) => r.mix === mix && layoutName(r) === name);
      return row?.measured ? Math.round(row.measured.outputTokensPerSecond) : null;
    },
    look,
  );
  const option: EChartsOption = {
    ...common(look),
    title: heading(title, look),
    legend: legend(46, look, { areas: mixes.map((m) => MIX_NAMES[m]) }),
    grid: bars.grid,
    xAxis: valueAxis(look),
    yAxis: bars.yAxis,
    series: bars.series,
  };
  const software = results.adapter?.software
    ? " A CPU plays GPU here: more sequences in a step save it little."
    : "";
  const caption = `New tokens of all requests by the time until the last one is done.${software}`;
  return chart(
    "throughput",
    { title, caption },
    bars.height,
    option,
    mixes.map(() => "tokens/s"),
  );
}
