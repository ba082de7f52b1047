/** What the charts of a throughput experiment share: lines of points over an axis of seconds. */
import { type Look, valueAxis } from "./chart-parts.ts";

export type Point = [x: number, y: number];

/** More points than this nobody sees in a chart. */
export const MOST_POINTS = 600;
/** Pixels of a panel's plot. */
export const PANEL_HEIGHT = 220;
/** Pixels above the first panel: heading, title of the panel, legend. */
export const TOP = 100;

export interface Style {
  /** Opacity of the area below the line. */
  readonly area?: number;
  /** The value holds from its point to the next. */
  readonly step?: boolean;
  readonly dash?: "solid" | "dashed" | "dotted";
}

export function line(name: string, data: Point[], color: string, { area, step, dash = "solid" }: Style) {
  return {
    name,
    type: "line" as const,
    color,
    symbol: "none",
    lineStyle: { width: 1.8, type: dash },
    ...(area !== undefined && { areaStyle: { opacity: area } }),
    ...(step && { step: "end" as const }),
    data,
  };
}

/** A horizontal axis of times from 0 to `max`. */
export function secondsAxis(look: Look, name: string, max: number, gridIndex = 0) {
  return {
    ...valueAxis(look, { gridIndex, max: round(max) }),
    name,
    nameLocation: "middle" as const,
    nameGap: 28,
    nameTextStyle: { color: look.muted, fontSize: 12 },
    axisLine: { show: true, lineStyle: { color: look.muted } },
    axisTick: { show: true },
    splitLine: { show: false },
  };
}

/** To five significant digits, which is more than a picture shows. */
export function round(value: number): number {
  return Number(value.toPrecision(5));
}
