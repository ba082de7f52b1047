import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { capacityChartIds, capacityCharts } from "../../src/bench/capacity-charts.ts";
import { completeCapacity, concludeCapacity } from "../../src/bench/capacity-conclude.ts";
import { capacityCsv, capacityStepsCsv, writeCapacity } from "../../src/bench/capacity-files.ts";
import { capacityReport } from "../../src/bench/capacity-report.ts";
import {
  CAPACITY_RESULTS,
  type CapacityResults,
  type CapacityRow,
  type MeasuredCapacityResults,
} from "../../src/bench/capacity-results.ts";
import { budgetLine, capacityCells, capacityText } from "../../src/bench/capacity-table.ts";
import { DARK, LIGHT } from "../../src/bench/chart-parts.ts";
import { chartSvg } from "../../src/bench/chart-svg.ts";
import { type Experiment, experiment, measuredCapacity } from "./capacity-fixture.ts";

let done: Experiment;
let results: CapacityResults;
beforeAll(async () => {
  done = await experiment();
  results = measuredOnEngine(done.results);
});

/** As if strips and pages of 16 had run on the engine, pages twice as fast. */
function measuredOnEngine(simulated: CapacityResults): CapacityResults {
  const rows = simulated.rows.map((row): CapacityRow => {
    if (!row.simulated || row.pageSize === 8) return row;
    const seconds = row.layout === "pages" ? 1.25 : 2.5;
    const outputTokensPerSecond = row.simulated.generatedTokens / seconds;
    const times = { meanTimeToFirstToken: 0.5, meanEndToEnd: 1 };
    const total = { totalTokensPerSecond: 2 * outputTokensPerSecond };
    const measured = { seconds, outputTokensPerSecond, ...total, ...times, ...row.simulated };
    return { ...row, measured };
  });
  const { schema: _, conclusion: __, ...rest } = simulated;
  return completeCapacity({ ...rest, rows });
}

const withRows = (rows: (row: CapacityRow) => CapacityRow): MeasuredCapacityResults => ({
  ...results,
  rows: results.rows.map(rows),
});

describe("results.json", () => {
  test("fits its schema, which keeps every field in its order", () => {
    expect(JSON.stringify(CAPACITY_RESULTS.parse(results))).toBe(JSON.stringify(results));
    const withoutGpu = { ...results, adapter: null, model: { ...results.model, weightBytes: null } };
    expect(CAPACITY_RESULTS.parse(withoutGpu)).toEqual(withoutGpu);
  });

  test("refuses what is wrong", () => {
    const [row] = results.rows;
    const wrong = [
      { ...results, schema: "quire-bench-capacity/0" },
      { ...results, options: { ...results.options, seed: 2 ** 64 } },
      { ...results, options: { ...results.options, measure: "some" } },
      { ...results, rows: [{ ...row, layout: "strips" }] },
      { ...results, rows: [{ ...row, simulated: { ...row!.simulated, wastePercent: 101 } }] },
      { ...results, rows: [{ ...row, simulated: { ...row!.simulated, meanExternal: Number.NaN } }] },
    ];
    for (const value of wrong) expect(CAPACITY_RESULTS.safeParse(value).success).toBe(false);
  });
});

describe("the table", () => {
  test("has a row for each layout, compared with strips of maximum length", () => {
    const rows = capacityCells(results, "lognormal");
    expect(rows.map(([name]) => name)).toEqual([
      "strips, maximum length",
      "strips, exact length",
      "pages of 8",
      "pages of 8, shared",
      "pages of 16",
      "pages of 16, shared",
      "pages of 256",
      "pages of 256, shared",
    ]);
    const [max, , , , pages] = rows as string[][];
    const figures = results.rows.find((r) => r.layout === "pages" && r.pageSize === 16)!;
    expect(max!.slice(1, 4)).toEqual(["6.0", "6", "1.00×"]);
    expect(pages![3]).toBe(`${(figures.simulated!.meanSequences / 6).toFixed(2)}×`);
    expect(pages![4]).toBe(`${figures.simulated!.wastePercent.toFixed(1)} %`);
    expect(pages![8]).toBe("–");
    expect(pages!.at(-1)).toBe("1.25 s");
    expect(rows[6]).toEqual(["pages of 256", "cannot hold the longest request"]);
  });

  test("as text says what was run, and becomes a list where it does not fit", () => {
    const text = capacityText(results);
    expect(text).toContain(budgetLine(results));
    expect(text).toMatch(/^ ?layout +at once +peak +× max +waste/m);
    expect(text).toContain("pages of 256: cannot hold the longest request");
    for (const sentence of results.conclusion) expect(text).toContain(`- ${sentence}`);
    const narrow = capacityText(results, 60);
    expect(narrow).toContain("strips, maximum length\n  at once: 6.0\n  peak: 6\n");
    expect(narrow).not.toMatch(/^ ?layout +at once/m);
  });
});

describe("the conclusion", () => {
  const find = (start: string, from: readonly string[] = results.conclusion) =>
    from.find((sentence) => sentence.startsWith(start));

  test("compares pages with strips, with the oracle, with other sizes, and on the engine", () => {
    expect(find("Log-normal mix: pages of 16 held")).toMatch(
      /held \d\.\d\d× the sequences of strips of 64 \([\d.]+ against 6\.0 at once\); of what they reserved [\d.]+ % was waste, against [\d.]+ %\.$/,
    );
    expect(find("Log-normal mix, by page size")).toMatch(/8: [\d.]+ at once, [\d.]+ % waste; 16: /);
    expect(find("Log-normal mix: no prompt begins as another one does")).toBeDefined();
    expect(find("Log-normal mix, on the engine")).toMatch(
      /strips of maximum length ([\d,]+) tokens\/s, all done after 2\.50 s; pages of 16 [\d,]+ tokens\/s \(2\.00×\), all done after 1\.25 s; pages of 16, shared/,
    );
    expect(results.conclusion).toContain(
      "The rows on the engine took the steps of their simulations, one for one.",
    );
  });

  test("counts what was found of what could be: the prefix in all requests but the first", () => {
    const row = results.rows.find((r) => r.mix === "shared-prefix" && r.prefixCache && r.pageSize === 16)!;
    const share = (100 * row.simulated!.prefixHits) / (20 * 39);
    expect(find("Shared-prefix mix: with shared prefixes")).toContain(
      `${share.toFixed(1)} % of the prefix tokens that a request before had computed were found`,
    );
  });

  test("does not call pages better than an oracle that held more", () => {
    const oracle = (factor: number) =>
      concludeCapacity(
        withRows((row) => {
          const pages = results.rows.find((r) => r.mix === row.mix && r.pageSize === 16)!.simulated!;
          const meanSequences = factor * pages.meanSequences;
          return row.layout === "strips-exact"
            ? { ...row, simulated: { ...row.simulated!, meanSequences } }
            : row;
        }),
      ).join("\n");
    expect(oracle(2)).toContain("strips of the exact length held 2.00× the sequences of pages of 16");
    expect(oracle(1)).toContain("strips of the exact length held as many sequences as pages of 16");
    expect(oracle(0.5)).toContain("pages of 16 held 2.00× the sequences of strips of the exact length");
  });

  test("tells what makes the figures less than they could be", () => {
    expect(find("Cannot hold the longest request in this budget: log-normal: pages of 256")).toContain(
      "no two pages of 256",
    );
    const easy = concludeCapacity(
      withRows((r) => ({ ...r, simulated: r.simulated && { ...r.simulated, crowdedSteps: 0 } })),
    );
    expect(find("Nobody waited for memory", easy)).toBeDefined();
    const full = concludeCapacity({ ...results, options: { ...results.options, maxSequences: 6 } });
    expect(find("At the most sequences that a step may have (6)", full)).toContain("strips, maximum length");
    const huge = { ...results, options: { ...results.options, kvTokens: 2 ** 18 + 1 } };
    expect(find("No page map: 262,145 slots are too many", concludeCapacity(huge))).toBeDefined();
    expect(find("No page map")).toBeUndefined();
    expect(find("The adapter is software")).toBeDefined();
    expect(
      find("The experiment is incomplete: x", concludeCapacity({ ...results, incomplete: "x" })),
    ).toBeDefined();
    const steps = withRows((r) => ({ ...r, measured: r.measured && { ...r.measured, steps: 1 } }));
    expect(find("The engine did NOT take the steps", concludeCapacity(steps))).toBeDefined();
    const ahead = { ...steps, options: { ...steps.options, async: true } };
    expect(find("On the engine a step is submitted before", concludeCapacity(ahead))).toBeDefined();
  });
});

describe("the charts", () => {
  test("are sequences, memory and steps of each mix, and throughput where it was measured", () => {
    const ids = capacityCharts(results, LIGHT).map((c) => c.id);
    expect(ids).toEqual([
      "sequences",
      "memory-lognormal",
      "memory-shared-prefix",
      "timeline-lognormal",
      "timeline-shared-prefix",
      "throughput",
    ]);
    expect(capacityChartIds(["lognormal", "shared-prefix"])).toEqual(ids);
    expect(capacityCharts(done.results, LIGHT).map((c) => c.id)).toEqual(ids.slice(0, -1));
    expect(capacityCharts({ ...results, rows: [] }, LIGHT)).toEqual([]);
  });

  test("are plain JSON with a unit for each series, and draw without a browser", () => {
    for (const look of [LIGHT, DARK])
      for (const chart of capacityCharts(results, look)) {
        expect(JSON.parse(JSON.stringify(chart.option))).toEqual(chart.option);
        expect(chart.units).toHaveLength((chart.option.series as unknown[]).length);
        const svg = chartSvg(chart);
        expect(svg).toContain(`>${chart.title}</text>`);
        expect(svg).not.toMatch(/NaN|undefined|Infinity/);
      }
  });

  test("of memory add up to the budget", () => {
    const chart = capacityCharts(results, LIGHT).find((c) => c.id === "memory-lognormal")!;
    const series = chart.option.series as { data: (number | { value: number })[] }[];
    const value = (d: number | { value: number }) => (typeof d === "number" ? d : d.value);
    series[0]!.data.forEach((_, i) => {
      const whole = series.reduce((sum, s) => sum + value(s.data[i]!), 0);
      expect(Math.abs(whole - 100)).toBeLessThan(0.3);
    });
  });
});

describe("the files", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "quire-capacity-"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  test("are figures, tables, charts, page maps and the report", async () => {
    const files = await writeCapacity(folder, results, done.runs, done.maps);
    expect(files.map((f) => f.slice(folder.length + 1))).toEqual([
      ...["results.json", "capacity.csv", "steps.csv"],
      ...capacityChartIds(["lognormal", "shared-prefix"]).map((id) => join("charts", `${id}.svg`)),
      ...["lognormal", "shared-prefix"].map((id) => join("charts", `page-map-${id}.svg`)),
      "report.html",
    ]);
    expect(JSON.parse(readFileSync(join(folder, "results.json"), "utf8"))).toEqual(results);
    // The next experiment has fewer of them: what it does not have goes.
    const half = { ...done.results, rows: done.results.rows.filter((r) => r.mix === "lognormal") };
    const fewer = { ...half, mixes: half.mixes.slice(0, 1) };
    await writeCapacity(folder, fewer, done.runs.slice(0, 8), done.maps.slice(0, 1));
    expect(readdirSync(join(folder, "charts")).sort()).toEqual([
      "memory-lognormal.svg",
      "page-map-lognormal.svg",
      "sequences.svg",
      "timeline-lognormal.svg",
    ]);
    expect(existsSync(join(folder, "report.html"))).toBe(true);
  });

  test("capacity.csv has a line for each row, steps.csv one for each step", () => {
    const [head, ...rows] = capacityCsv(results)
      .trimEnd()
      .split("\n")
      .map((line) => line.split(","));
    expect(rows).toHaveLength(results.rows.length);
    for (const row of rows) expect(row).toHaveLength(head!.length);
    const of = (name: string, row = rows[0]!) => row[head!.indexOf(name)];
    expect(rows[0]!.slice(0, 6).join()).toBe("lognormal,strips-max,1,false,384,384");
    expect([of("mean_sequences"), of("measured_steps"), of("seconds")]).toEqual(["6", of("steps"), "2.5"]);
    // Refused: neither simulated nor measured.
    expect([of("steps", rows[6]), of("seconds", rows[6])]).toEqual(["", ""]);

    const lines = capacityStepsCsv(done.runs).trimEnd().split("\n");
    const steps = done.results.rows.reduce((n, r) => n + (r.simulated?.steps ?? 0), 0);
    expect(lines).toHaveLength(1 + steps);
    expect(lines[0]).toBe("mix,layout,step,tokens,sampled,running,waiting,preempted,reserved,used,logical");
    expect(lines[1]).toMatch(/^lognormal,strips-max,0,\d+,\d+,\d+,\d+,0,\d+,\d+,\d+$/);
  });
});

describe("report.html", () => {
  /** The report without the library that it carries. */
  function page(html: string): string {
    const scripts = [...html.matchAll(/<script>[\s\S]*?<\/script>/g)].map((m) => m[0]);
    return html.replace(scripts.find((s) => s.length > 500_000)!, "");
  }

  test("has tables, conclusion, a map to play for each mix, charts, options and environment", () => {
    const html = page(capacityReport(results, done.maps));
    for (const sentence of results.conclusion) expect(html).toContain(`<li>${sentence}</li>`);
    expect(html.match(/<div class="player" hidden>/g)).toHaveLength(2);
    expect(html.match(/<div class="chart" id="chart-/g)).toHaveLength(6);
    expect(html).toContain("Software adapter: correct, slow, no benchmark.");
    expect(html).toContain('<th scope="row">kvTokens</th><td>384</td>');
    expect(html).toContain("<li>Log-normal lengths, pages of 256: 384 slots have no two pages of 256");
    for (const table of html.match(/<table[\s\S]*?<\/table>/g)!) expect(table).toContain('<th scope="row"');
    expect(html).toContain("prefers-color-scheme: dark");
    expect(html.replaceAll('xmlns="http://www.w3.org/2000/svg"', "")).not.toMatch(
      /\s(src|href)="|@import|url\((?!#)/,
    );
  });

  test("without a GPU says so, and one that broke off has what there is", () => {
    const simulated = capacityReport({ ...done.results, adapter: null }, done.maps);
    expect(simulated).toContain("simulated, without a model");
    const nothing = measuredCapacity({ runs: [], maps: [], error: new Error("interrupted") });
    const html = page(capacityReport(completeCapacity(nothing), []));
    expect(html).toContain('<p class="alert" role="alert">interrupted</p>');
    expect(html).not.toMatch(/<h2>(Charts|Page maps)/);
  });
});
