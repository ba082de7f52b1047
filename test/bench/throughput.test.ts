import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { DARK, LIGHT } from "../../src/bench/chart-parts.ts";
import { chartSvg } from "../../src/bench/chart-svg.ts";
import {
  type MeasuredThroughput,
  measureThroughput,
  rehearsal,
  type ThroughputOptions,
  type TimedStep,
  untilWarm,
  warmUpRounds,
} from "../../src/bench/throughput.ts";
import { heldOverTime, rateOverTime, throughputCharts } from "../../src/bench/throughput-charts.ts";
import { concludeThroughput } from "../../src/bench/throughput-conclude.ts";
import { requestLatency, throughputFigures } from "../../src/bench/throughput-figures.ts";
import { cumulative } from "../../src/bench/throughput-latency-chart.ts";
import {
  requestsCsv,
  stepsCsv,
  throughputReport,
  writeThroughput,
} from "../../src/bench/throughput-report.ts";
import {
  percentileNames,
  THROUGHPUT_RESULTS,
  THROUGHPUT_SCHEMA,
  type ThroughputResults,
} from "../../src/bench/throughput-results.ts";
import { throughputText } from "../../src/bench/throughput-table.ts";
import type { WorkloadRequest } from "../../src/bench/workload.ts";
import type { RequestOutput } from "../../src/generate/engine-types.ts";
import { FakeEngine } from "./fake-engine.ts";
import { sampleMeasured } from "./sample-results.ts";

const OPTIONS: ThroughputOptions = { sampling: { temperature: 0, seed: 3 }, ignoreEos: true };
/** Requests that come at once, of so many tokens in and out. */
const requests = (...lengths: readonly [input: number, output: number][]): WorkloadRequest[] =>
  lengths.map(([input, outputLen]) => ({ prompt: Array(input).fill(1), outputLen, arrival: 0 }));

describe("measuring", () => {
  test("submits every request with its own number, and gathers all steps and outputs in the workload's order", async () => {
    const engine = new FakeEngine({ maxSequences: 2 });
    const workload = requests([5, 9], [6, 2], [7, 1]);
    const progress: string[] = [];
    const measured = await measureThroughput(
      engine,
      [{ ...workload[0]!, priority: -2, salt: "s" }, ...workload.slice(1)],
      {
        ...OPTIONS,
        onProgress: (done, total) => progress.push(`${done}/${total}`),
      },
    );
    expect(measured.error).toBeUndefined();
    expect(
      measured.finished.map((f) => [f.index, f.output.promptTokens, f.output.tokenTimes.length]),
    ).toEqual([
      [0, 5, 9],
      [1, 6, 2],
      [2, 7, 1],
    ]);
    expect(engine.submissions.map((s) => [s.sequenceId, s.maxNewTokens, s.priority, s.salt])).toEqual([
      [0, 9, -2, "s"],
      [1, 2, undefined, undefined],
      [2, 1, undefined, undefined],
    ]);
    expect(engine.submissions[0]).toMatchObject({ ignoreEos: true, sampling: { seed: 3 } });
    expect(measured.steps).toHaveLength(9);
    expect(measured.counters).toMatchObject({ computedTokens: 18 + 9, generatedTokens: 12, preemptions: 0 });
    expect(measured.duration).toBe(measured.finished[0]!.output.times.finished! - measured.start);
    expect(progress.at(-1)).toBe("3/3");
    expect([engine.open, engine.listeners]).toEqual([0, 0]);
  });

  test("submits no request before it arrives, though the engine is idle meanwhile", async () => {
    const engine = new FakeEngine();
    const workload = requests([4, 2], [4, 2], [4, 2]).map((r, i) => ({ ...r, arrival: i * 0.03 }));
    const { finished, start } = await measureThroughput(engine, workload, OPTIONS);
    for (const { index, output } of finished)
      expect(output.times.submitted - start).toBeGreaterThanOrEqual(index * 0.03);
    expect(finished).toHaveLength(3);
  });

  test("holds back what is over the bound, and counts its wait from its submit", async () => {
    const engine = new FakeEngine();
    const { finished } = await measureThroughput(engine, requests([4, 3], [4, 3], [4, 3]), {
      ...OPTIONS,
      maxConcurrency: 2,
    });
    const times = finished.map((f) => f.output.times);
    expect(times[2]!.submitted).toBeGreaterThanOrEqual(Math.min(times[0]!.finished!, times[1]!.finished!));
  });

  test("goes on without a request that the engine refuses, and tells why", async () => {
    const engine = new FakeEngine({ maxSeqLen: 10 });
    const { finished, refused } = await measureThroughput(engine, requests([4, 3], [9, 2], [4, 1]), OPTIONS);
    expect(finished.map((f) => f.index)).toEqual([0, 2]);
    expect(refused).toEqual([{ index: 1, reason: "the request has more than 10 tokens" }]);
  });

  test("keeps what was finished when the signal ends it, in a step or in a wait", async () => {
    const inStep = new AbortController();
    const reason = new Error("Ctrl-C");
    const engine = new FakeEngine({ beforeStep: (step) => step === 3 && inStep.abort(reason) });
    const early = await measureThroughput(engine, requests([4, 2], [4, 8]), {
      ...OPTIONS,
      signal: inStep.signal,
    });
    expect([early.error, early.finished.map((f) => f.index), early.steps.length]).toEqual([reason, [0], 3]);

    const inWait = new AbortController();
    setTimeout(() => inWait.abort(reason), 5);
    const far = requests([4, 2], [4, 2]).map((r, i) => ({ ...r, arrival: i * 1e9 }));
    const waited = await measureThroughput(new FakeEngine(), far, { ...OPTIONS, signal: inWait.signal });
    expect([waited.error, waited.finished.map((f) => f.index)]).toEqual([reason, [0]]);
  });

  test("keeps what was finished when a step fails", async () => {
    const error = new Error("device lost");
    const engine = new FakeEngine({
      beforeStep: (step) => {
        if (step === 4) throw error;
      },
    });
    const measured = await measureThroughput(engine, requests([4, 2], [4, 8]), OPTIONS);
    expect([measured.error, measured.finished.length]).toEqual([error, 1]);
    expect(engine.listeners).toBe(0);
  });
});

describe("the warm-up", () => {
  test("is one round on the software adapter, and rounds until 2 seconds have passed on a GPU", async () => {
    let now = 0;
    const clock = vi.spyOn(performance, "now").mockImplementation(() => now);
    let rounds = 0;
    const round = async () => {
      rounds++;
      now += 750;
    };
    await untilWarm(true, round);
    expect(rounds).toBe(1);
    await untilWarm(false, round);
    expect(rounds).toBe(1 + 3);
    clock.mockRestore();
  });

  test("rehearses the first requests with other tokens, all at once", () => {
    const workload = requests([3, 5], [4, 6], [5, 7]).map((r, i) => ({ ...r, arrival: i }));
    expect(rehearsal(workload, 2, 131)).toEqual([
      { prompt: [2, 2, 2], outputLen: 5, arrival: 0 },
      { prompt: [2, 2, 2, 2], outputLen: 6, arrival: 0 },
    ]);
    expect(rehearsal(workload, 0, 131)).toEqual([]);
  });

  test("in short meets every size of batch once, then fills a step with prompts", async () => {
    const workload = requests(...Array.from({ length: 20 }, (): [number, number] => [50, 30]));
    const [batches, prompts] = warmUpRounds(workload, {
      sequences: 16,
      maxBatchedTokens: 128,
      vocabSize: 131,
    });
    const engine = new FakeEngine({ maxSequences: 16, maxBatchedTokens: 128 });
    const { steps } = await measureThroughput(engine, batches!, OPTIONS);
    expect(steps.map((s) => s.sampled)).toEqual([16, 16, 8, 4, 2, 1]);
    expect(prompts!.map((r) => [r.prompt.length, r.outputLen])).toEqual([
      [50, 1],
      [50, 1],
      [50, 1],
    ]);
  });

  test("has no token where the measured prompts have one, and nothing to do for no sequence", () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 20 }), {
          minLength: 1,
          maxLength: 9,
        }),
        fc.integer({ min: 0, max: 12 }),
        fc.integer({ min: 1, max: 40 }),
        (prompts, sequences, maxBatchedTokens) => {
          const workload = prompts.map((prompt) => ({ prompt, outputLen: 5, arrival: 1 }));
          const rounds = warmUpRounds(workload, { sequences, maxBatchedTokens, vocabSize: 10 });
          expect(rounds).toHaveLength(sequences === 0 ? 0 : 2);
          for (const round of rounds) {
            expect(round.length).toBeLessThanOrEqual(sequences);
            for (const [i, { prompt, outputLen, arrival }] of round.entries()) {
              expect(prompt.length).toBeGreaterThan(0);
              expect(prompt.every((id, j) => id < 10 && id !== prompts[i]![j])).toBe(true);
              expect(outputLen >= 1 && outputLen <= 5 && arrival === 0).toBe(true);
            }
          }
        },
      ),
      { numRuns: 50, seed: 5 },
    );
  });
});

/** A request submitted at 10 whose tokens came at the times given, with what its prefix cache found. */
function output(times: readonly number[], more: Partial<RequestOutput> = {}): RequestOutput {
  return {
    id: 0,
    promptTokens: 10,
    cachedTokens: 0,
    completions: [{ index: 0, tokens: times.map(() => 1), text: "", finishReason: "length" }],
    times: { submitted: 10, admitted: 10.25, firstToken: times[0], finished: times.at(-1) },
    tokenTimes: times,
    preemptions: 0,
    ...more,
  };
}

const step = (time: number, seconds: number, more: Partial<TimedStep> = {}): TimedStep => ({
  step: 0,
  time,
  seconds,
  hostSeconds: seconds / 4,
  tokens: 2,
  sampled: 2,
  running: 2,
  waiting: 0,
  preempted: 0,
  kv: { total: 100, reserved: 50, used: 40, logical: 40 },
  ...more,
});

const MEASURED: MeasuredThroughput = {
  start: 10,
  duration: 4,
  finished: [
    { index: 0, output: output([11, 11.5, 12.5]) },
    { index: 1, output: output([12]) },
    { index: 3, output: output([11, 13, 14], { cachedTokens: 8, preemptions: 1 }) },
  ],
  refused: [{ index: 2, reason: "too long" }],
  steps: [
    step(1, 1, { tokens: 30, sampled: 2 }),
    step(2, 1, { kv: { total: 100, reserved: 80, used: 80, logical: 100 } }),
    step(4, 2, { tokens: 1, sampled: 1, hostSeconds: 1, waiting: 1 }),
  ],
  counters: {
    prefixQueries: 40,
    prefixHits: 10,
    preemptions: 1,
    recomputedTokens: 12,
    swappedPages: 0,
    computedTokens: 33,
    generatedTokens: 7,
    surplusTokens: 0,
  },
};

describe("the figures", () => {
  test("of a request are times from its submit, in milliseconds", () => {
    expect(requestLatency(output([11, 11.5, 12.5]))).toEqual({
      ttft: 1000,
      tpot: 750,
      itl: [500, 1000],
      e2el: 2500,
    });
    expect(requestLatency(output([12]))).toEqual({ ttft: 2000, tpot: null, itl: [], e2el: 2000 });
  });

  const figures = throughputFigures(MEASURED, [50, 99.9], 10);

  test("are those of vLLM, in its names", () => {
    // ttft 1000, 2000, 1000; tpot 750, 1500; itl 500, 1000, 2000, 1000; e2el 2500, 2000, 4000.
    expect(figures).toMatchObject({
      duration: 4,
      completed: 3,
      failed: 1,
      total_input_tokens: 30,
      total_output_tokens: 7,
      request_throughput: 0.75,
      output_throughput: 1.75,
      total_token_throughput: 9.25,
      max_output_tokens_per_s: 3,
      max_concurrent_requests: 3,
      mean_ttft_ms: 4000 / 3,
      median_ttft_ms: 1000,
      std_ttft_ms: expect.closeTo(Math.sqrt(2 / 9) * 1000, 9),
      p50_ttft_ms: 1000,
      "p99.9_ttft_ms": expect.closeTo(1998, 9),
      mean_tpot_ms: 1125,
      std_tpot_ms: 375,
      p50_tpot_ms: 1125,
      mean_itl_ms: 1125,
      median_itl_ms: 1000,
      mean_e2el_ms: 8500 / 3,
      median_e2el_ms: 2500,
      "p99.9_e2el_ms": 3997,
    });
  });

  test("of memory and of the host are weighted with the steps' seconds", () => {
    // Slots times seconds: 50 + 80 + 100 reserved, 40 + 80 + 80 used, 40 + 100 + 80 logical, of 400.
    expect(figures.kv).toEqual({
      total_slots: 100,
      mean_usage_percent: 57.5,
      peak_usage_percent: 80,
      waste_percent: (100 * 30) / 230,
      sharing: 1.1,
    });
    expect(figures.steps).toEqual({
      count: 3,
      mean_ms: 4000 / 3,
      mean_tokens: 11,
      host_share_percent: 37.5,
      // The step with the prompts is none of them, nor the one of a single sequence.
      full_decode: { count: 1, mean_ms: 1000, mean_tokens: 2, host_share_percent: 25, sequences: 2 },
    });
  });

  test("count what the prefix cache found, of all and of what is shared", () => {
    expect(figures.prefix_cache).toEqual({
      queries: 40,
      hits: 10,
      hit_rate_percent: 25,
      // 8 of the 10 shared tokens of each request but the first.
      shared_prefix_hit_percent: 40,
    });
    expect(throughputFigures(MEASURED, [], 0).prefix_cache.shared_prefix_hit_percent).toBeNull();
  });

  test("of nothing are nulls and zeros, not NaN", () => {
    const nothing = throughputFigures({ ...MEASURED, finished: [], steps: [], duration: 0 }, [99], 0);
    expect(nothing).toMatchObject({
      completed: 0,
      output_throughput: 0,
      max_output_tokens_per_s: 0,
      mean_ttft_ms: null,
      p99_e2el_ms: null,
      kv: { total_slots: null, waste_percent: null, sharing: null },
      steps: { count: 0, mean_ms: null, full_decode: null },
    });
    expect(JSON.stringify(nothing)).not.toContain("NaN");
  });
});

function sampleResults(measured = MEASURED, more: Partial<ThroughputResults> = {}): ThroughputResults {
  const { model, options: _, runs: __, ...environment } = sampleMeasured();
  const percentiles = [50, 90, 99];
  const results = {
    schema: THROUGHPUT_SCHEMA,
    date: "20261123-181530",
    backend: "quire",
    model_id: "novels-en",
    num_prompts: 4,
    request_rate: 2.5,
    burstiness: 1,
    max_concurrency: null,
    ...throughputFigures(measured, percentiles, 0),
    memory: {
      peak_bytes: 3_000_000,
      peak_by_purpose: { weights: 1_000_000, kv: 2_000_000, activations: 0, tables: 0, staging: 0 },
      kv_bytes: 2_000_000,
      max_concurrency: 2.5,
    },
    ...environment,
    model,
    options: {
      dataset: null,
      input_len: "lognormal:20,1",
      output_len: "10",
      prefix_len: 0,
      num_warmups: 4,
      percentiles,
      ignore_eos: true,
      kv_layout: "pages",
      page_size: 16,
      max_seq_len: 64,
      max_sequences: 256,
      max_batched_tokens: 256,
      chunked_prefill: true,
      prefix_cache: true,
      preemption: "recompute",
      watermark: 0.01,
      async: false,
      temperature: 0,
      top_k: 0,
      top_p: 1,
      min_p: 0,
      repetition_penalty: 1,
      seed: "18446744073709551615",
      kernels: "auto",
    },
    conclusion: [],
    ...more,
  } as ThroughputResults;
  return { ...results, conclusion: concludeThroughput(results, measured.steps) };
}

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
