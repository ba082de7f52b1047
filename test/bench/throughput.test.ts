import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { measureThroughput, rehearsal, untilWarm, warmUpRounds } from "../../src/bench/throughput.ts";
import { requestLatency, throughputFigures } from "../../src/bench/throughput-figures.ts";
import { FakeEngine } from "./fake-engine.ts";
import { MEASURED, OPTIONS, output, requests } from "./throughput-sample.ts";

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
