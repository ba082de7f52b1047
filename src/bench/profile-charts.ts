/** The charts of a profile as echarts options: figures in, plain JSON out; chart-svg.ts draws them. */
import type { EChartsOption } from "echarts";
import {
  type Chart,
  chart,
  common,
  heading,
  type Look,
  legend,
  panelTitle,
  valueAxis,
} from "./chart-parts.ts";
import type { ProfiledDispatch, ProfiledStep, ProfileResults } from "./profile-results.ts";
import { formatSeconds, inUnit, timeUnit, type Unit } from "./units.ts";

/** Okabe and Ito's colours, which stay distinct for the colour-blind, then lighter and darker ones for further kernels. */
const COLOURS = [
  ...["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#b8a800", "#59636e"],
  ...["#7a3e9d", "#8c564b", "#a6cee3", "#b2df8a", "#f28cb1", "#004f6e", "#6b8e23", "#c8b6e2"],
];
/** Pixels: of the space for names at the left, and of one row. */
const LEFT = 150;
const ROW = 22;
/** Pixels above the first panel: under a heading, and under a legend of up to three lines as well. */
const TOP = { plain: 92, legend: 166 };
/** Pixels between two panels: axis labels of the one, title of the other. */
const BETWEEN = 84;

const NAMES = { decode: "Decode step", prefill: "Prefill step" } as const;

/** Both charts: where each dispatch lies in its layer, and the kernels' shares. */
export function profileCharts(results: ProfileResults, look: Look): [timeline: Chart, kernels: Chart] {
  return [timelineChart(results, look), kernelsChart(results, look)];
}

/** Dispatches that follow one another in one part of the model. */
interface Stage {
  readonly name: string;
  readonly dispatches: readonly ProfiledDispatch[];
}

/** The dispatches of a step by the stages that they name, in order. */
export function stagesOf({ dispatches }: Pick<ProfiledStep, "dispatches">): Stage[] {
  const stages: { name: string; dispatches: ProfiledDispatch[] }[] = [];
  for (const d of dispatches) {
    if (stages.at(-1)?.name === d.stage) stages.at(-1)!.dispatches.push(d);
    else stages.push({ name: d.stage, dispatches: [d] });
  }
  return stages;
}

function timelineChart({ steps, model }: ProfileResults, look: Look): Chart {
  const colours = coloursOf(steps);
  const panels = steps.map((step) => {
    const stages = stagesOf(step);
    const longest = Math.max(
      0,
      ...stages.map((s) => endOf(s.dispatches.at(-1)!) - s.dispatches[0]!.beginSeconds),
    );
    return { step, stages, unit: timeUnit(longest) };
  });
  const layout = layoutOf(
    panels.map((p) => p.stages.length),
    TOP.legend,
  );
  const series = panels.flatMap((panel, i) => segments(panel.stages, panel.unit, i, colours, look));
  const option: EChartsOption = {
    ...common(look),
    title: [
      heading(`${model.name}: a step, layer by layer`, look),
      ...panels.map(({ step, unit }, i) =>
        panelTitle(`${describe(step)} (${unit.name})`, layout.tops[i]! - 30, look),
      ),
    ],
    legend: legend(46, look, { areas: [...colours.keys()] }),
    grid: layout.grids,
    xAxis: panels.map((_, i) => valueAxis(look, { gridIndex: i })),
    yAxis: panels.map(({ stages }, i) =>
      rowAxis(
        stages.map((s) => s.name || "(not named)"),
        i,
        look,
      ),
    ),
    series: series.map(({ unit: _, ...s }) => s),
  };
  const text = {
    title: `${model.name}: a step, layer by layer`,
    caption:
      "Each row is a part of the model, from the beginning of its first dispatch; each bar is a dispatch in a pass of its own. " +
      "The gaps between bars are what passes cost; a step in one pass has none of them.",
  };
  const units = series.map((s) => s.unit);
  return chart("timeline", text, layout.height, option, units);
}

/**
 * Bars side by side in a row are a stack: for each place in a row the gap before it, then one series for each kernel that any
 * row has there. Series of one kernel share its name, so the legend shows it once.
 */
function segments(
  stages: readonly Stage[],
  unit: Unit,
  panel: number,
  colours: ReadonlyMap<string, string>,
  look: Look,
) {
  const most = Math.max(0, ...stages.map((s) => s.dispatches.length));
  const base = {
    type: "bar" as const,
    stack: `panel ${panel}`,
    xAxisIndex: panel,
    yAxisIndex: panel,
    barWidth: ROW - 8,
    unit: unit.name,
  };
  return Array.from({ length: most }, (_, place) => {
    const at = stages.map(({ dispatches }) => dispatches[place]);
    const gaps = stages.map(({ dispatches }) => gapBefore(dispatches, place));
    const kernels = [...new Set(at.flatMap((d) => (d ? [d.kernel] : [])))];
    return [
      {
        ...base,
        name: "",
        itemStyle: { opacity: 0 },
        tooltip: { show: false },
        data: gaps.map((gap) => inUnit(gap, unit)),
      },
      ...kernels.map((kernel) => ({
        ...base,
        name: kernel,
        color: colours.get(kernel)!,
        // A hairline between two dispatches of one kernel.
        itemStyle: { borderColor: look.background, borderWidth: 0.5 },
        data: at.map((d) => (d?.kernel === kernel ? inUnit(d.seconds, unit) : null)),
      })),
    ];
  }).flat();
}

/** Seconds between the end of the dispatch before and this one's beginning; medians need not fit, so at least 0. */
function gapBefore(dispatches: readonly ProfiledDispatch[], place: number): number {
  const [before, here] = [dispatches[place - 1], dispatches[place]];
  return before && here ? Math.max(0, here.beginSeconds - endOf(before)) : 0;
}

function endOf(d: ProfiledDispatch): number {
  return d.beginSeconds + d.seconds;
}

function kernelsChart({ steps, model }: ProfileResults, look: Look): Chart {
  const colours = coloursOf(steps);
  const panels = steps.map((step) => {
    const totals = new Map<string, number>();
    for (const d of step.dispatches) totals.set(d.kernel, (totals.get(d.kernel) ?? 0) + d.seconds);
    const bars = [...totals].sort(([, a], [, b]) => b - a);
    return { step, bars, unit: timeUnit(Math.max(0, ...totals.values())) };
  });
  const layout = layoutOf(
    panels.map((p) => p.bars.length),
    TOP.plain,
  );
  const title = `${model.name}: time by kernel`;
  const option: EChartsOption = {
    ...common(look),
    title: [
      heading(title, look),
      ...panels.map(({ step, unit }, i) =>
        panelTitle(`${describe(step)} (${unit.name})`, layout.tops[i]! - 30, look),
      ),
    ],
    grid: layout.grids,
    xAxis: panels.map((_, i) => valueAxis(look, { gridIndex: i })),
    yAxis: panels.map(({ bars }, i) =>
      rowAxis(
        bars.map(([kernel]) => kernel),
        i,
        look,
      ),
    ),
    series: panels.map(({ step, bars, unit }, i) => ({
      type: "bar" as const,
      name: NAMES[step.name],
      xAxisIndex: i,
      yAxisIndex: i,
      barWidth: ROW - 8,
      data: bars.map(([kernel, seconds]) => ({
        value: inUnit(seconds, unit),
        itemStyle: { color: colours.get(kernel)! },
        label: {
          show: true,
          position: "right" as const,
          color: look.text,
          fontSize: 11,
          formatter: `${formatSeconds(seconds)}, ${share(seconds, step.profiledSeconds)}`,
        },
      })),
    })),
  };
  const caption = "All dispatches of a kernel together, each in a pass of its own, and their share of all.";
  return chart(
    "kernels",
    { title, caption },
    layout.height,
    option,
    panels.map((p) => p.unit.name),
  );
}

function share(seconds: number, total: number): string {
  return total > 0 ? `${((100 * seconds) / total).toFixed(1)} %` : "–";
}

function describe(step: ProfiledStep): string {
  return step.name === "decode"
    ? `${NAMES.decode}: one token that sees ${step.contextLength}`
    : `${NAMES.prefill}: ${step.newTokens} tokens`;
}

/** A colour for each kernel, in the order in which they first run. */
function coloursOf(steps: readonly ProfiledStep[]): Map<string, string> {
  const kernels = [...new Set(steps.flatMap((s) => s.dispatches.map((d) => d.kernel)))];
  return new Map(kernels.map((kernel, i) => [kernel, COLOURS[i % COLOURS.length]!]));
}

/** Panels one below another, each as high as its rows. */
function layoutOf(rows: readonly number[], above: number) {
  let top = above;
  const grids = rows.map((count) => {
    const grid = { left: LEFT, right: 110, top, height: Math.max(1, count) * ROW };
    top += grid.height + BETWEEN;
    return grid;
  });
  return { grids, tops: grids.map((g) => g.top), height: top - BETWEEN + 48 };
}

function rowAxis(names: readonly string[], gridIndex: number, look: Look) {
  return {
    type: "category" as const,
    gridIndex,
    inverse: true,
    data: [...names],
    axisLabel: { color: look.text, fontSize: 12, interval: 0 },
    axisTick: { show: false },
    axisLine: { lineStyle: { color: look.muted } },
  };
}
