/** The chart of bench prefill: tokens a second of each case, the peer's beside ours. */
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
import { caseName, type PrefillResults } from "./prefill-results.ts";
import { peerName } from "./prefill-table.ts";

/** Pixels: space for the cases' names at the left, one bar, the space between cases. */
const LEFT = 90;
const BAR = 18;
const CASE_GAP = 14;
const TOP = 100;

export const PREFILL_CHART = "tokens";

/** The chart, or none without a row. */
export function prefillCharts({ rows, model }: PrefillResults, look: Look): Chart[] {
  if (rows.length === 0) return [];
  const peers = [...new Set(rows.flatMap((r) => r.peers.map(peerName)))];
  const ours = `quire ${model.dtype}`;
  const colours = [look.modes.none, look.modes.contiguous, look.purposes.kv, look.purposes.staging];
  const bar = (name: string, color: string, data: (number | null)[]) => ({
    name,
    type: "bar" as const,
    color,
    barWidth: BAR - 3,
    barGap: "15%",
    label: { show: true, position: "right" as const, color: look.text, fontSize: 11 },
    data,
  });
  const series = [
    bar(
      ours,
      look.modes.paged,
      rows.map((r) => Math.round(r.tokens_per_s)),
    ),
    ...peers.map((name, i) =>
      bar(
        name,
        colours[i % colours.length]!,
        rows.map((r) => {
          const tokens = r.peers.find((p) => peerName(p) === name)?.tokens_per_s;
          return tokens === undefined ? null : Math.round(tokens);
        }),
      ),
    ),
  ];
  const height = rows.length * (series.length * BAR + CASE_GAP);
  const title = "Prefill: tokens a second";
  const caption =
    "Sequences × tokens of each prompt; all tokens of a case by the median time. Logits of the last token of each sequence only.";
  const option: EChartsOption = {
    ...common(look),
    title: [heading(title, look), panelTitle("tokens per second", TOP - 54, look)],
    legend: legend(TOP - 32, look, { areas: series.map((s) => s.name) }),
    grid: { left: LEFT, right: 90, top: TOP, height },
    xAxis: valueAxis(look),
    yAxis: {
      type: "category",
      inverse: true,
      data: rows.map((r) => caseName(r.prefill)),
      axisLabel: { color: look.text, fontSize: 12, interval: 0 },
      axisTick: { show: false },
      axisLine: { lineStyle: { color: look.muted } },
    },
    series,
  };
  const units = series.map(() => "tokens/s");
  return [chart(PREFILL_CHART, { title, caption }, TOP + height + 40, option, units)];
}
