import { afterAll, describe, expect, test } from "vitest";
import { type LatencyOptions, measureLatency, randomPrompts } from "../../src/bench/latency.ts";
import {
  decodeReads,
  decodeWeightBytes,
  LATENCY_RESULTS,
  LATENCY_SCHEMA,
  type LatencyResults,
  latencyFigures,
} from "../../src/bench/latency-results.ts";
import { latencyText } from "../../src/bench/latency-table.ts";
import { BadInput } from "../../src/check.ts";
import { slotBytes } from "../../src/kv/cache.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";
import { TINY } from "../model/tiny.ts";
import { sampleMeasured } from "./sample-results.ts";

const gpu = await openTestGpu();
const model = await Gpt2.load(gpu, TINY);
afterAll(() => model.free());

const OPTIONS: LatencyOptions = {
  batchSize: 2,
  inputLen: 5,
  outputLen: 4,
  warmup: 1,
  iterations: 2,
  timing: "visible",
  kv: "paged",
  kvDtype: "f32",
  pageSize: 8,
  sampling: { temperature: 0, seed: 1 },
};
const measure = (options: Partial<LatencyOptions> = {}) => measureLatency(model, { ...OPTIONS, ...options });

describe("measureLatency", () => {
  test.each([
    ["visible", "paged"],
    ["pipelined", "paged"],
    ["pipelined", "contiguous"],
    ["visible", "none"],
  ] as const)("runs the batch after the warm-up, %s with KV %s", async (timing, kv) => {
    const calls: string[] = [];
    const { iterations, error, shape } = await measure({
      timing,
      kv,
      onIteration: (done, total) => calls.push(`${done}/${total}`),
    });
    expect(error).toBeUndefined();
    expect(calls).toEqual(["1/3", "2/3", "3/3"]);
    expect(iterations).toHaveLength(2);
    for (const { seconds, firstTokenSeconds, surplus } of iterations) {
      expect(firstTokenSeconds).toBeGreaterThan(0);
      expect(seconds).toBeGreaterThan(firstTokenSeconds);
      expect(surplus).toBe(0);
    }
    expect(shape.slotBytes).toBe(kv === "none" ? 0 : slotBytes(model.cacheShape("f32")));
  });

  test("counts the weights that a decode step reads: all but the embeddings, and the head once", () => {
    // L = 2, C = 48, F = 192, V = 131; the head is the token embedding.
    const block = 4 * 48 + (48 + 1) * 144 + (48 + 1) * 48 + (48 + 1) * 192 + (192 + 1) * 48;
    expect(decodeWeightBytes(model)).toBe(4 * (2 * block + 2 * 48 + 131 * 48));
  });

  test("keeps the iterations before the signal, and gives everything back", async () => {
    await expectLedgerUnchanged(gpu, async () => {
      const controller = new AbortController();
      const reason = new Error("Ctrl-C");
      const { iterations, error } = await measure({
        signal: controller.signal,
        onIteration: (done) => done === 2 && controller.abort(reason),
      });
      expect([iterations.length, error]).toEqual([1, reason]);
    });
  });

  test("refuses lengths that the context cannot hold", async () => {
    const refused = measure({ inputLen: 40, outputLen: 25 });
    await expect(refused).rejects.toBeInstanceOf(BadInput);
    await expect(refused).rejects.toThrow("--input-len is 40 and --output-len is 25; together at most");
  });

  test("draws prompts from the seed, within the vocabulary, each of its own", () => {
    const draw = (seed: number) => randomPrompts(131, { ...OPTIONS, sampling: { temperature: 0, seed } });
    expect(draw(1)).toEqual(draw(1));
    expect(draw(1)).not.toEqual(draw(2));
    const [a, b] = draw(1);
    expect(a).toHaveLength(5);
    expect(a).not.toEqual(b);
    for (const id of [...a!, ...b!]) expect(id >= 0 && id < 131 && Number.isInteger(id)).toBe(true);
  });
});

describe("the figures of latency", () => {
  const shape = { batchSize: 2, inputLen: 10, outputLen: 5, weightBytes: 1000, slotBytes: 8 };
  const iteration = (seconds: number, surplus = 0) => ({ seconds, firstTokenSeconds: 1, surplus });
  const figures = latencyFigures([iteration(2), iteration(4, 3), iteration(3)], shape);

  test("are those of vLLM, in its names", () => {
    expect(figures).toMatchObject({
      avg_latency: 3,
      std_latency: expect.closeTo(Math.sqrt(2 / 3), 12),
      latencies: [2, 4, 3],
      percentiles: { "10": 2.2, "25": 2.5, "50": 3, "75": 3.5, "90": 3.8, "99": 3.98 },
    });
  });

  test("time a token of decode without the first, and all new tokens by the whole time", () => {
    expect(figures).toMatchObject({
      time_to_first_token: 1,
      ms_per_token: 500,
      ms_per_token_p50: 500,
      tokens_per_s: 10 / 3,
      surplus_tokens: 3,
    });
  });

  test("count what each step must read: weights once, every sequence's tokens so far", () => {
    // Contexts 11, 12, 13, 14 of two sequences.
    expect(decodeReads(shape)).toEqual({ steps: 4, weight_bytes: 1000, kv_bytes: (2 * 50 * 8) / 4 });
    expect(figures.achieved_gb_per_s).toBeCloseTo(1200 / 0.5 / 1e9, 15);
  });

  test("of a single token have no decode", () => {
    expect(latencyFigures([iteration(1)], { ...shape, outputLen: 1 })).toMatchObject({
      ms_per_token: null,
      ms_per_token_p50: null,
      achieved_gb_per_s: null,
      decode_reads: { steps: 0, kv_bytes: 0 },
    });
  });

  const { model: description, options: _, runs: __, ...environment } = sampleMeasured();
  const results: LatencyResults = {
    schema: LATENCY_SCHEMA,
    ...figures,
    ...environment,
    model: description,
    options: {
      batch_size: 2,
      input_len: 10,
      output_len: 5,
      num_iters_warmup: 1,
      num_iters: 3,
      timing: "pipelined",
      kv: "paged",
      page_size: 16,
      temperature: 0,
      top_k: 0,
      top_p: 1,
      min_p: 0,
      repetition_penalty: 1,
      seed: "18446744073709551615",
      kernels: "auto",
    },
  };

  test("fit the schema, which keeps every field in its order and refuses what is wrong", () => {
    expect(JSON.stringify(LATENCY_RESULTS.parse(results))).toBe(JSON.stringify(results));
    const wrong = [
      { ...results, schema: "quire-bench-latency/0" },
      { ...results, latencies: [] },
      { ...results, percentiles: { "50": 1 } },
      { ...results, avg_latency: Number.NaN },
      { ...results, options: { ...results.options, timing: "fast" } },
    ];
    for (const value of wrong) expect(LATENCY_RESULTS.safeParse(value).success).toBe(false);
  });

  test("are told in plain text with their formula", () => {
    const text = latencyText({ ...results, incomplete: "interrupted" });
    expect(text).toMatch(/^latency, mean +3\.00 s$/m);
    expect(text).toMatch(/^p99 +3\.98 s$/m);
    expect(text).toMatch(/^time per token, decode +500\.00 ms$/m);
    expect(text).toContain("pipelined: steps run ahead, tokens come back in rounds");
    expect(text).toContain("bytes that a decode step must read, weights 1000 B and KV 200 B");
    expect(text).toContain("no benchmark of any GPU");
    expect(text).toContain("Incomplete: interrupted; the figures are of the iterations before.");
    expect(latencyText({ ...results, ms_per_token: null, achieved_gb_per_s: null })).toMatch(
      /^achieved bandwidth +–$/m,
    );
  });
});
