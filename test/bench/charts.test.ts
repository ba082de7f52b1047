import { describe, expect, test } from "vitest";
import { DARK, LIGHT, latencyScale, niceCeiling } from "../../src/bench/chart-parts.ts";
import { chartSvg } from "../../src/bench/chart-svg.ts";
import { kvCharts } from "../../src/bench/charts.ts";
import type { CacheMode } from "../../src/kv/cache.ts";
import { MAX_SEQ_LEN, PAGE_SIZE, sampleResults } from "./sample-results.ts";

const SHAPES = [
  {},
  { repeats: 1, newTokens: 1 },
  { newTokens: 500, repeats: 1 },
  { modes: ["paged"] as const },
  { modes: ["none"] as const, prefillSeconds: 1 },
  { batch: 4, newTokens: 8 },
];

describe("the charts", () => {
  test("are the side-by-side, normalised and raw ones and one for each mode", () => {
    expect(kvCharts(sampleResults(), "en", LIGHT).map((c) => c.id)).toEqual([
      "modes",
      "normalised",
      "raw-latency",
      "raw-kv",
      "mode-none",
      "mode-contiguous",
      "mode-paged",
    ]);
    expect(kvCharts(sampleResults({ modes: ["none"] }), "en", LIGHT).map((c) => c.id)).not.toContain(
      "raw-kv",
    );
    expect(kvCharts({ ...sampleResults(), runs: [], summary: [] }, "en", LIGHT)).toEqual([]);
  });

  test("of a batch have what it keeps, and its tokens per second", () => {
    const ids = (modes?: readonly CacheMode[]) =>
      kvCharts(sampleResults({ batch: 4, newTokens: 8, modes }), "en", LIGHT).map((c) => c.id);
    expect(ids().slice(0, 6)).toEqual([
      "modes",
      "normalised",
      "batch-kv",
      "raw-latency",
      "batch-rate",
      "raw-kv",
    ]);
    expect(ids(["none"])).not.toContain("batch-kv");
    const charts = kvCharts(sampleResults({ batch: 4, newTokens: 8, repeats: 1 }), "en", LIGHT);
    const series = (id: string) =>
      charts.find((c) => c.id === id)!.option.series as { name: string; data: unknown[] }[];
    const running = series("batch-rate").at(-1)!;
    expect([running.name, running.data]).toEqual(["sequences that run", [4, 4, 3, 3, 2, 2, 1, 1]]);
    const fit = series("batch-kv").at(-1)!.data as { value: number }[];
    expect(fit.map((d) => d.value)).toEqual([4, 4 * (MAX_SEQ_LEN / PAGE_SIZE)]);
    // Without strips there is no memory to compare with.
    const paged = kvCharts(sampleResults({ batch: 4, modes: ["paged"] }), "en", LIGHT);
    expect(paged.find((c) => c.id === "batch-kv")!.option.series).toHaveLength(2);
  });

  test("are plain JSON with finite numbers and a unit for each series", () => {
    for (const shape of SHAPES) {
      for (const chart of kvCharts(sampleResults(shape), "zh", DARK)) {
        expect(JSON.parse(JSON.stringify(chart.option))).toEqual(chart.option);
        expect(chart.units).toHaveLength((chart.option.series as unknown[]).length);
      }
    }
  });

  test("draw to SVG in both languages without a browser", () => {
    for (const lang of ["en", "zh"] as const) {
      for (const shape of SHAPES) {
        for (const chart of kvCharts(sampleResults(shape, lang), lang, LIGHT)) {
          const svg = chartSvg(chart);
          expect(svg).toMatch(/^<svg role="img" aria-label="[^"]+" /);
          expect(svg).toContain(`>${chart.title}</text>`);
          expect(svg).not.toMatch(/NaN|undefined|Infinity/);
        }
      }
    }
  });

  test("normalise each figure to its largest value", () => {
    const chart = kvCharts(sampleResults(), "en", LIGHT).find((c) => c.id === "normalised")!;
    const series = chart.option.series as { data: number[] }[];
    for (const [i] of series[0]!.data.entries()) expect(Math.max(...series.map((s) => s.data[i]!))).toBe(1);
  });

  test("mark the prefill, on the scale or off it", () => {
    const svg = (prefillSeconds: number) => {
      const charts = kvCharts(sampleResults({ prefillSeconds, repeats: 1 }), "en", LIGHT);
      return chartSvg(charts.find((c) => c.id === "mode-paged")!);
    };
    expect(svg(0.009)).toMatch(/>prefill \d\.\d\d ms</);
    expect(svg(0.9)).toMatch(/>prefill \d+\.\d ms \(off the scale\)</);
  });
});

describe("the latency axis", () => {
  test("ends above the later steps when the prefill would flatten them", () => {
    expect(latencyScale([[0.03, 0.01, 0.01]]).max).toBeUndefined();
    expect(latencyScale([[0.031, 0.01, 0.01]])).toEqual({ unit: { name: "ms", size: 1e-3 }, max: 12 });
    expect(latencyScale([[0.5]]).max).toBeUndefined();
    expect(latencyScale([]).max).toBeUndefined();
  });

  test("ends at a round number not below the value", () => {
    expect([0, 0.013, 1, 7, 81, 120].map(niceCeiling)).toEqual([1, 0.015, 1, 8, 100, 120]);
  });
});
