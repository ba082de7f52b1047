import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { TimedStep } from "../../src/bench/throughput.ts";
import { concludeThroughput } from "../../src/bench/throughput-conclude.ts";
import {
  requestsCsv,
  stepsCsv,
  throughputReport,
  writeThroughput,
} from "../../src/bench/throughput-report.ts";
import { percentileNames, THROUGHPUT_RESULTS } from "../../src/bench/throughput-results.ts";
import { throughputText } from "../../src/bench/throughput-table.ts";
import { MEASURED, sampleResults, step } from "./throughput-sample.ts";

describe("the results", () => {
  const results = sampleResults();

  test("fit the schema, percentiles included, and come back as they were", () => {
    expect(THROUGHPUT_RESULTS.parse(results)).toEqual(results);
    expect(percentileNames([50, 99.9])).toEqual(
      ["ttft", "tpot", "itl", "e2el"].flatMap((m) => [`p50_${m}_ms`, `p99.9_${m}_ms`]),
    );
  });

  test.each([
    ["another schema", { schema: "quire-bench-throughput/0" }],
    ["a percentile that was not asked for", { p75_ttft_ms: 1 }],
    ["a percentile too few", { options: { ...results.options, percentiles: [50, 90, 95, 99] } }],
    ["NaN", { mean_ttft_ms: Number.NaN }],
    ["more waste than all", { kv: { ...results.kv, waste_percent: 101 } }],
    ["a field that no one knows", { surprise: "x" }],
  ])("do not fit it with %s", (_, change) => {
    expect(THROUGHPUT_RESULTS.safeParse({ ...results, ...change }).success).toBe(false);
  });

  test("are told in plain text", () => {
    const text = throughputText({ ...results, failure: "too long", incomplete: "interrupted" });
    expect(text).toContain("4 requests: random tokens, lognormal:20,1 in, 10 out; 2.5 a second (Poisson)");
    expect(text).toMatch(/^requests finished +3 of 4$/m);
    expect(text).toMatch(/^output tokens per second +1\.75$/m);
    expect(text).toMatch(/^host busy, of a step +37\.5 %$/m);
    expect(text).toMatch(/^ {2}of a full decode step +25\.0 % \(2 sequences\)$/m);
    expect(text).toMatch(/^KV waste, of those held +13\.0 %$/m);
    expect(text).toMatch(/^prefix cache, of prompt tokens +25\.0 %$/m);
    expect(text).toMatch(/^ {2}kv +1\.9 MiB$/m);
    expect(text).toMatch(/^ +mean +std +median +p90 +p99$/m);
    expect(text).toMatch(/^ *time to first token +1\.33 s +0\.47 s +1\.00 s +1\.80 s +1\.98 s$/m);
    expect(text).toContain("- 3 requests in 4.00 s: 1.75 output tokens a second, 9.25 with the prompts.");
    expect(text).toContain("1 failed, since they can never run; the first: too long");
    expect(text).toContain("no benchmark of any GPU");
    expect(text).toContain("Incomplete: interrupted; the figures are of the requests that were finished.");
  });

  test("name what is not random, not at once and not unbounded", () => {
    const options = { ...results.options, dataset: "a/b.jsonl", prefix_len: 0 };
    const text = throughputText({ ...results, options, burstiness: 0.5, max_concurrency: 7 });
    expect(text).toContain("4 requests: a/b.jsonl; 2.5 a second (burstiness 0.5), 7 at most at once");
    expect(throughputText({ ...results, request_rate: "inf" })).toContain("; all at once\n");
    const shared = throughputText({ ...results, options: { ...results.options, prefix_len: 512 } });
    expect(shared).toContain("10 out, 512 shared in front");
  });
});

describe("the conclusion", () => {
  const quiet = { ...MEASURED, counters: { ...MEASURED.counters, preemptions: 0 } };
  const conclude = (steps: TimedStep[], measured = quiet) =>
    concludeThroughput(sampleResults({ ...measured, steps }), steps).join("\n");

  test("says what requests waited for", () => {
    expect(conclude([step(1, 1)], MEASURED)).toContain(
      "Keys and values ran out of room: 1 preemption, 12 tokens",
    );
    expect(conclude([step(1, 2), step(2, 1, { waiting: 5 })])).toContain(
      "Most of the time no request waited: the engine had",
    );
    expect(conclude([step(1, 1, { waiting: 5, running: 256 })])).toContain(
      "since 256 sequences were running",
    );
    expect(conclude([step(1, 1, { waiting: 5, tokens: 256 })])).toContain(
      "--max-batched-tokens 256 bounds them",
    );
    expect(conclude([step(1, 1, { waiting: 5 })])).toContain(
      "more --kv-memory lets more of them run at once",
    );
  });

  test("says how long a request waited, what the host did, and that nothing was finished", () => {
    expect(conclude([...MEASURED.steps])).toContain(
      "A request waited 1.00 s for the first token and 1.13 s for each further one (medians).",
    );
    expect(conclude([...MEASURED.steps])).toContain("busy for 25.0 % of a decode step of 2 sequences.");
    expect(conclude([step(1, 1, { tokens: 9 })])).not.toContain("host");
    expect(conclude([], { ...quiet, finished: [] })).toBe(
      "No request was finished, so there are no figures.",
    );
  });
});

describe("tables of steps and requests", () => {
  test("have a line a step, with the unit in each name", () => {
    const [head, first, ...more] = stepsCsv(MEASURED).split("\n");
    expect(head).toBe(
      "time_seconds,seconds,host_seconds,tokens,sampled,running,waiting," +
        "kv_total_slots,kv_reserved_slots,kv_used_slots,kv_logical_slots,preempted",
    );
    expect(first).toBe("1,1,0.25,30,2,2,0,100,50,40,40,0");
    expect(more).toHaveLength(3);
  });

  test("have a line a finished request, by its place in the workload", () => {
    const lines = requestsCsv(MEASURED).split("\n");
    expect(lines[0]).toBe(
      "request,input_tokens,output_tokens,cached_tokens,preemptions,finish_reason," +
        "submitted_seconds,admitted_seconds,first_token_seconds,finished_seconds",
    );
    expect(lines[1]).toBe("0,10,3,0,0,length,0,0.25,1,2.5");
    expect(lines[3]).toBe("3,10,3,8,1,length,0,0.25,1,4");
    expect(lines.slice(4)).toEqual([""]);
  });
});

describe("the folder", () => {
  const dir = mkdtempSync(join(tmpdir(), "quire-throughput-"));

  test("gets the figures, both tables, the charts and the report, and loses charts of an earlier run", async () => {
    try {
      const files = await writeThroughput(dir, sampleResults(), MEASURED);
      expect(files.map((f) => f.slice(dir.length + 1))).toEqual([
        ...["results.json", "steps.csv", "requests.csv"],
        ...["charts/tokens.svg", "charts/load.svg", "charts/kv.svg", "charts/latency.svg", "report.html"],
      ]);
      expect(JSON.parse(readFileSync(join(dir, "results.json"), "utf8"))).toEqual(sampleResults());
      await writeThroughput(dir, sampleResults({ ...MEASURED, finished: [] }), { ...MEASURED, finished: [] });
      expect(existsSync(join(dir, "charts/latency.svg"))).toBe(false);
      expect(existsSync(join(dir, "charts/kv.svg"))).toBe(true);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  test("has a report with the conclusion, all tables and charts, and names as text", () => {
    const results = sampleResults(MEASURED, { incomplete: "interrupted" });
    results.model.name = "<img src=x>";
    // Without the library and the charts' data, which nobody wants to read in a failure.
    const html = throughputReport(results, MEASURED).replace(/<(script|svg)[\s\S]*?<\/\1>/g, "");
    for (const sentence of results.conclusion) expect(html).toContain(`<li>${sentence}</li>`);
    expect(html.match(/<figcaption>/g)).toHaveLength(4);
    expect(html).toContain('<th scope="row">time per output token</th>');
    expect(html).toContain('<th scope="row" class="part">weights</th>');
    expect(html).toContain("&lt;img src=x&gt;");
    expect(html).not.toContain("<img");
    expect(html).toContain('role="alert">interrupted</p>');
    expect(html).toContain('<th scope="row">max_batched_tokens</th>');
  });
});
