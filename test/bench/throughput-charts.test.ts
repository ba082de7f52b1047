import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { DARK, LIGHT } from "../../src/bench/chart-parts.ts";
import { chartSvg } from "../../src/bench/chart-svg.ts";
import type { MeasuredThroughput } from "../../src/bench/throughput.ts";
import { heldOverTime, rateOverTime, throughputCharts } from "../../src/bench/throughput-charts.ts";
import { cumulative } from "../../src/bench/throughput-latency-chart.ts";
import { MEASURED, output, step } from "./throughput-sample.ts";

describe("a rate over time", () => {
  test("spreads a step's tokens over its own seconds", () => {
    const steps = [step(1, 1, { tokens: 10 }), step(4, 2, { tokens: 8 })];
    expect(rateOverTime(steps, (s) => s.tokens, 4, 4)).toEqual([
      [0.5, 10],
      [1.5, 0],
      [2.5, 4],
      [3.5, 4],
    ]);
  });

  test("loses no token and invents none", () => {
    const gaps = fc.tuple(fc.integer({ min: 0, max: 50 }), fc.integer({ min: 1, max: 300 }), fc.nat(1000));
    fc.assert(
      fc.property(
        fc.array(gaps, { minLength: 1, maxLength: 20 }),
        fc.integer({ min: 1, max: 40 }),
        (drawn, bins) => {
          let now = 0;
          const steps = drawn.map(([idle, ms, tokens]) => {
            now += (idle + ms) / 1e3;
            return step(now, ms / 1e3, { tokens });
          });
          const total = rateOverTime(steps, (s) => s.tokens, now, bins).reduce(
            (sum, [, rate]) => sum + rate,
            0,
          );
          const wanted = drawn.reduce((sum, [, , tokens]) => sum + tokens, 0);
          // Each rate is rounded to five digits.
          expect(Math.abs((total * now) / bins - wanted)).toBeLessThanOrEqual(1e-4 * wanted + 1e-9);
        },
      ),
      { numRuns: 100, seed: 4 },
    );
  });
});

describe("a value over time", () => {
  test("holds for its step, and is 0 between steps", () => {
    const steps = [step(1, 0.5, { running: 3 }), step(2, 1, { running: 4 }), step(4, 1, { running: 5 })];
    expect(heldOverTime(steps, (s) => s.running)).toEqual([
      [0, 0],
      [0.5, 3],
      [1, 4],
      [2, 0],
      [3, 5],
      [4, 5],
    ]);
    expect(heldOverTime([], (s) => s.running)).toEqual([]);
  });

  test("of many steps keeps the peaks, and goes forward in time", () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(50), { minLength: 1, maxLength: 60 }),
        fc.integer({ min: 1, max: 20 }),
        (values, most) => {
          const steps = values.map((running, i) => step((i + 1) / 10, 0.1, { running }));
          const points = heldOverTime(steps, (s) => s.running, most);
          expect(points.length).toBeLessThanOrEqual(most + 1);
          expect(Math.max(...points.map(([, y]) => y))).toBe(Math.max(...values));
          for (const [i, [x]] of points.entries()) expect(x).toBeGreaterThanOrEqual(points[i - 1]?.[0] ?? 0);
          expect(points.at(-1)![0]).toBe(values.length / 10);
        },
      ),
      { numRuns: 50, seed: 6 },
    );
  });
});

describe("the charts", () => {
  const shared = MEASURED.steps.map((s) => ({ ...s, kv: { ...s.kv, logical: 90 } }));
  const single: MeasuredThroughput = {
    ...MEASURED,
    finished: [MEASURED.finished[1]!],
    steps: [MEASURED.steps[0]!],
  };
  const outlier = { index: 0, output: output([...Array.from({ length: 300 }, (_, i) => 11 + i / 1e3), 90]) };
  const cases = {
    ordinary: MEASURED,
    shared: { ...MEASURED, steps: shared },
    single,
    unfinished: { ...MEASURED, finished: [] },
    outlier: { ...MEASURED, finished: [outlier] },
  };

  test("are of tokens, of requests, of memory and of latencies", () => {
    expect(throughputCharts(MEASURED, LIGHT).map((c) => c.id)).toEqual(["tokens", "load", "kv", "latency"]);
    expect(throughputCharts(cases.unfinished, LIGHT).map((c) => c.id)).toEqual(["tokens", "load", "kv"]);
    expect(throughputCharts({ ...MEASURED, steps: [] }, LIGHT)).toEqual([]);
  });

  test.each(Object.entries(cases))("are plain JSON and drawn to SVG: %s", (_, measured) => {
    for (const look of [LIGHT, DARK]) {
      for (const chart of throughputCharts(measured, look)) {
        expect(JSON.parse(JSON.stringify(chart.option))).toEqual(chart.option);
        expect(chart.units).toHaveLength((chart.option.series as unknown[]).length);
        const svg = chartSvg(chart);
        expect(svg).toContain(`>${chart.title}</text>`);
        expect(svg).not.toMatch(/NaN|undefined|Infinity/);
      }
    }
  });

  test("say what is shared only where something is, and what is off the scale", () => {
    const svg = (measured: MeasuredThroughput, id: string) =>
      chartSvg(throughputCharts(measured, LIGHT).find((c) => c.id === id)!);
    expect(svg(cases.shared, "kv")).toContain("without sharing");
    expect(svg({ ...MEASURED, steps: [MEASURED.steps[0]!] }, "kv")).not.toContain("without sharing");
    expect(svg(cases.outlier, "latency")).toMatch(/>The longest, 78\.\d\d s, is off the scale\.</);
    expect(svg(MEASURED, "latency")).not.toContain("off the scale");
  });

  test("cumulate from none to all, in steps", () => {
    const { option } = throughputCharts(MEASURED, LIGHT).at(-1)!;
    for (const series of option.series as { step?: string }[]) expect(series.step).toBe("end");
    expect(cumulative([3, 1, 2, 2])).toEqual([
      [1, 0],
      [1, 25],
      [2, 50],
      [2, 75],
      [3, 100],
    ]);
    const many = cumulative(Array.from({ length: 5001 }, (_, i) => i));
    expect(many.length).toBeLessThan(650);
    expect(many.at(-1)).toEqual([5000, 100]);
  });
});
