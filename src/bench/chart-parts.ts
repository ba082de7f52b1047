/** What the charts share: colours, axes, titles, legends. Plain data, so that the report can carry it as JSON. */
import type { EChartsOption } from "echarts";
import type { Purpose } from "../gpu/memory.ts";
import type { CacheMode } from "../kv/cache.ts";
import type { RunResult } from "./results.ts";
import { timeUnit, type Unit } from "./units.ts";

/** A prefill this many times as long as the longest later step leaves the scale. */
const OFF_SCALE_FACTOR = 3;
/** Space above the longest later step then. */
const HEADROOM = 1.2;

/** Colours of one appearance. The palette is Okabe and Ito's, which stays distinct for the colour-blind, lightened for dark. */
export interface Look {
  name: "light" | "dark";
  background: string;
  text: string;
  /** Axis labels and captions. */
  muted: string;
  gridLine: string;
  modes: Record<CacheMode, string>;
  purposes: Record<Purpose, string>;
}

export const LIGHT: Look = {
  name: "light",
  background: "#ffffff",
  text: "#1f2328",
  muted: "#59636e",
  gridLine: "#dfe3e8",
  modes: { none: "#d55e00", contiguous: "#0072b2", paged: "#009e73" },
  purposes: {
    weights: "#9aa3ad",
    kv: "#cc79a7",
    activations: "#56b4e9",
    tables: "#b8a800",
    staging: "#e69f00",
  },
};

export const DARK: Look = {
  name: "dark",
  background: "#15181c",
  text: "#e6e9ed",
  muted: "#a3acb7",
  gridLine: "#333a42",
  modes: { none: "#ff8b3d", contiguous: "#5fb8ee", paged: "#2ecb9c" },
  purposes: {
    weights: "#78828d",
    kv: "#d98bb6",
    activations: "#5fb8ee",
    tables: "#d8cb3f",
    staging: "#f0a92b",
  },
};

/** A dash beside the colour, so that lines stay apart in grey and where one hides another. */
export const MODE_DASH: Record<CacheMode, "solid" | "dashed" | "dotted"> = {
  none: "solid",
  contiguous: "dashed",
  paged: "solid",
};

/** Names that every system with Chinese text has one of. */
export const FONTS =
  "system-ui, 'Segoe UI', 'Noto Sans', 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', 'Noto Sans SC', sans-serif";

export interface Chart {
  /** Also the file's stem. */
  id: string;
  title: string;
  caption: string;
  width: number;
  height: number;
  option: EChartsOption;
  /** The unit of each series' values, in the order of `option.series`; "" for a plain number. */
  units: string[];
}

/** Drawing size in pixels; the report stretches the width. */
export const CHART_WIDTH = 900;
/** Space for the axis labels left and right of the plot. */
export const MARGIN = 64;

type Title = NonNullable<Extract<EChartsOption["title"], readonly unknown[]>>[number];

/** The heading of a chart, left above everything. */
export function heading(text: string, look: Look): Title {
  return { text, left: 16, top: 12, textStyle: { fontSize: 17, fontWeight: 600, color: look.text } };
}

/** The name and unit of one panel, at `top` pixels, in place of a name along its axis. */
export function panelTitle(text: string, top: number, look: Look): Title {
  return { text, left: 16, top, textStyle: { fontSize: 13, fontWeight: 600, color: look.muted } };
}

/**
 * A legend in its own row, at `top` pixels. An entry of `lines` shows the line with its dashes; one of `areas` a filled square.
 */
export function legend(
  top: number,
  look: Look,
  names: { areas?: readonly string[]; lines?: readonly string[] },
) {
  return {
    data: [
      ...(names.areas ?? []).map((name) => ({ name, icon: "roundRect" })),
      ...(names.lines ?? []).map((name) => ({ name, itemStyle: { opacity: 0 } })),
    ],
    top,
    left: 16,
    itemWidth: 22,
    itemHeight: 11,
    itemGap: 16,
    textStyle: { color: look.text, fontSize: 12 },
  };
}

/** The axis of steps 1 to `steps`, with room for its name below. */
export function stepAxis(steps: number, name: string, look: Look, gridIndex = 0) {
  const labelled = labelledSteps(steps);
  return {
    type: "category" as const,
    gridIndex,
    data: Array.from({ length: steps }, (_, i) => String(i + 1)),
    name,
    nameLocation: "middle" as const,
    nameGap: 28,
    nameTextStyle: { color: look.muted, fontSize: 12 },
    axisLabel: { color: look.muted, customValues: labelled },
    axisTick: { alignWithLabel: true, customValues: labelled },
    axisLine: { lineStyle: { color: look.muted } },
  };
}

/** Indices of the steps to label: 1 and the multiples of a round number, about a dozen. */
function labelledSteps(steps: number): number[] {
  const every = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((n) => steps / n <= 15) ?? 1000;
  return Array.from({ length: steps }, (_, i) => i).filter((i) => i === 0 || (i + 1) % every === 0);
}

/** A value axis from 0; `max` only where a value beyond it is marked in the chart. */
export function valueAxis(look: Look, extra: { gridIndex?: number; max?: number; position?: "right" } = {}) {
  return {
    type: "value" as const,
    min: 0,
    axisLabel: { color: look.muted },
    axisLine: { show: false },
    axisTick: { show: false },
    splitLine: { show: extra.position !== "right", lineStyle: { color: look.gridLine } },
    ...extra,
  };
}

/** What every chart has. */
export function common(look: Look) {
  return {
    animation: false,
    backgroundColor: look.background,
    textStyle: { fontFamily: FONTS, color: look.text },
    tooltip: {
      trigger: "axis" as const,
      confine: true,
      backgroundColor: look.background,
      borderColor: look.gridLine,
      textStyle: { color: look.text, fontSize: 12 },
    },
  };
}

/** The least 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6 or 8 times a power of ten that is at least `value`. */
export function niceCeiling(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const factor = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((f) => f * power >= value * (1 - 1e-9)) ?? 10;
  return Number((factor * power).toPrecision(3));
}

export function chart(
  id: string,
  text: { title: string; caption: string },
  height: number,
  option: EChartsOption,
  units: string[],
): Chart {
  return { id, title: text.title, caption: text.caption, width: CHART_WIDTH, height, option, units };
}

/** A line of small print at `top` pixels. */
export function note(text: string, top: number, look: Look): Title {
  return { text, left: 16, top, textStyle: { fontSize: 12, fontWeight: "normal", color: look.muted } };
}

/** Steps of the longest run. */
export function longest(runs: readonly RunResult[]): number {
  return Math.max(0, ...runs.map((r) => r.steps.length));
}

/**
 * Unit and end of a latency axis for lines of seconds per step. `max` (in the unit) is set when a prefill would flatten all
 * other steps; the caller then says that the prefill is off the scale.
 */
export function latencyScale(lines: readonly (readonly number[])[]): { unit: Unit; max?: number } {
  const first = Math.max(0, ...lines.map((line) => line[0] ?? 0));
  const later = Math.max(0, ...lines.flatMap((line) => line.slice(1)));
  if (later === 0 || first <= OFF_SCALE_FACTOR * later) return { unit: timeUnit(Math.max(first, later)) };
  const unit = timeUnit(later);
  return { unit, max: niceCeiling((HEADROOM * later) / unit.size) };
}
