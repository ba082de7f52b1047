import { afterAll, afterEach, describe, expect, test, vi } from "vitest";
import { LIGHT } from "../../src/bench/chart-parts.ts";
import { chartSvg } from "../../src/bench/chart-svg.ts";
import { measurePrefills, type PrefillOptions, parseCases } from "../../src/bench/prefill.ts";
import { prefillCharts } from "../../src/bench/prefill-chart.ts";
import { sameLogits } from "../../src/bench/prefill-check.ts";
import {
  firstTokenRatio,
  type MeasuredPrefill,
  type PrefillCase,
  prefillFlops,
  prefillRow,
} from "../../src/bench/prefill-figures.ts";
import { parsePeer } from "../../src/bench/prefill-peer.ts";
import { PREFILL_RESULTS, PREFILL_SCHEMA, type PrefillResults } from "../../src/bench/prefill-results.ts";
import { prefillText } from "../../src/bench/prefill-table.ts";
import { BadInput } from "../../src/check.ts";
import { PURPOSES } from "../../src/gpu/memory.ts";
import { CACHE_MODES } from "../../src/kv/cache.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";
import { TINY } from "../model/tiny.ts";
import { sampleMeasured } from "./sample-results.ts";

const gpu = await openTestGpu();
const model = await Gpt2.load(gpu, TINY);
afterAll(() => model.free());
afterEach(() => {
  vi.restoreAllMocks();
});

const OPTIONS: PrefillOptions = {
  cases: [
    [1, 9],
    [3, 20],
  ],
  warmup: 1,
  iterations: 2,
  kv: "paged",
  kvDtype: "f32",
  pageSize: 8,
  prefillChunk: 25,
  seed: 1,
};
const measure = (options: Partial<PrefillOptions> = {}) => measurePrefills(model, { ...OPTIONS, ...options });

describe("measurePrefills", () => {
  test.each([
    ["paged", "chunks of 7 and 13 tokens"],
    ["contiguous", "chunks of 7 and 13 tokens"],
    ["none", "each prompt alone"],
  ] as const)("measures every case with KV %s, after a check against %s", async (kv, against) => {
    const calls: string[] = [];
    const { measured, failures } = await measure({
      kv,
      onIteration: (done, total, name) => calls.push(`${name} ${done}/${total}`),
    });
    expect(failures).toEqual([]);
    expect(measured.map((m) => m.prefill)).toEqual(OPTIONS.cases);
    const [, last] = measured;
    expect(last!.check).toMatchObject({ against, argmax_equal: 3, sequences: 3 });
    expect(last!.iterations).toHaveLength(2);
    for (const { seconds, hostSeconds } of last!.iterations) expect(seconds).toBeGreaterThan(hostSeconds);
    expect(PURPOSES.reduce((sum, p) => sum + last!.peakByPurpose[p], 0)).toBe(last!.peakBytes);
    expect(last!.peakByPurpose.kv > 0).toBe(kv !== "none");
    expect([calls[0], calls.at(-1)]).toEqual(["1x9 1/10", "3x20 10/10"]);
  });

  test.each(CACHE_MODES)("a lone token, which has no chunks, is checked beside itself: KV %s", async (kv) => {
    const { measured } = await measure({ kv, cases: [[1, 1]], iterations: 1 });
    expect(measured[0]?.check).toMatchObject({ against: "the prompt beside itself", argmax_equal: 1 });
  });

  test("a case that fails loses neither those before nor those after it, and no memory", async () => {
    await expectLedgerUnchanged(gpu, async () => {
      const { measured, failures } = await measure({
        cases: [
          [1, 4],
          [1, 65],
          [2, 4],
        ],
        warmup: 0,
        iterations: 1,
      });
      expect(measured.map((m) => m.prefill)).toEqual([
        [1, 4],
        [2, 4],
      ]);
      expect(failures.map((f) => [f.prefill, f.error.message])).toEqual([
        [[1, 65], expect.stringContaining("context of 64")],
      ]);
    });
  });

  test("smaller pieces take less memory for activations", async () => {
    const peak = async (prefillChunk: number) => {
      const { measured } = await measure({ cases: [[2, 40]], warmup: 0, iterations: 1, prefillChunk });
      return measured[0]!.peakByPurpose.activations;
    };
    expect(await peak(16)).toBeLessThan(await peak(80));
  });

  test("a wrong result is no figure: a model that adds up otherwise in its second run is not timed", async () => {
    const forward = Gpt2.prototype.forward;
    vi.spyOn(Gpt2.prototype, "forward").mockImplementation(function (this: Gpt2, cache, items, ...rest) {
      const wrong = items.map((item) => ({ ...item, tokens: item.tokens.map((id) => (id + 1) % 131) }));
      return forward.call(this, cache, items[0]!.place.length > 0 ? wrong : items, ...rest);
    });
    const { measured, failures } = await measure();
    expect(measured).toEqual([]);
    expect(failures[0]?.error.message).toMatch(/^logits differ from those of chunks of 3 and 6 tokens: NMSE/);
  });

  test("keeps the cases before the signal", async () => {
    const controller = new AbortController();
    const reason = new Error("Ctrl-C");
    const { measured, aborted, failures } = await measure({
      signal: controller.signal,
      onIteration: (done) => done === 7 && controller.abort(reason),
    });
    expect([measured.length, failures.length, aborted]).toEqual([1, 0, reason]);
  });
});

describe("sameLogits", () => {
  const compare = (a: number[], b: number[]) =>
    sameLogits(
      Float32Array.from(a),
      { against: "b", logits: Float32Array.from(b) },
      { config: { ...model.config, vocabSize: 3 }, weights: model.weights },
    );
  test("counts sequences whose likeliest token is the same", () => {
    expect(compare([1, 2, 3, 6, 5, 4], [1, 2, 3, 6, 5, 4])).toEqual({
      against: "b",
      nmse: 0,
      nmse_allowed: 1e-9,
      argmax_equal: 2,
      sequences: 2,
    });
  });
  test("lets a tie within the allowed error pass, and tells it", () => {
    expect(compare([1, 2, 2.00001], [1, 2.00001, 2])).toMatchObject({ argmax_equal: 0 });
    expect(compare([1, 2, 2.00001], [1, 2.00001, 2]).failure).toBeUndefined();
  });
  test.each([
    ["another result", [1, 2, 3], [1, 2, 3.1]],
    ["NaN", [1, Number.NaN, 3], [1, 2, 3]],
    ["all zeros", [0, 0, 0], [0, 0, 0]],
  ])("refuses %s", (_, a, b) => {
    expect(compare(a, b).failure).toMatch(/^logits/);
  });
});

describe("the figures of prefill", () => {
  test("count the work of GPT-2 124M: blocks, pairs of positions, the head for last tokens", () => {
    const config = {
      ...model.config,
      layers: 12,
      heads: 12,
      channels: 768,
      innerChannels: 3072,
      vocabSize: 50_257,
    };
    const blocks = 2 * 8192 * 84_934_656;
    const attention = 4 * 768 * 12 * 8 * (1024 * 1025) * 0.5;
    expect(prefillFlops(config, [8, 1024])).toBe(blocks + attention + 2 * 8 * 768 * 50_257);
  });

  const measured = (prefill: PrefillCase, seconds: number[]): MeasuredPrefill => ({
    prefill,
    iterations: seconds.map((s) => ({ seconds: s, hostSeconds: s / 10 })),
    firstSeconds: 9,
    peakBytes: 3 * 2 ** 20,
    peakByPurpose: { weights: 2 ** 20, kv: 2 ** 21, activations: 0, tables: 0, staging: 0 },
    check: { against: "chunks", nmse: 0, nmse_allowed: 1e-9, argmax_equal: 1, sequences: 1 },
  });
  const peer = parsePeer(
    JSON.stringify([
      { peer: "hf", dtype: "float16", batch: 4, ms_per_step: 1 },
      { peer: "hf", dtype: "float16", prefill: [1, 512], ms: 1, tokens_per_s: 512_000 },
      { peer: "hf", dtype: "float32", prefill: [2, 512], ms: 1, tokens_per_s: 1 },
    ]),
    "hf.json",
  );
  const rows = [
    prefillRow(measured([1, 512], [0.004, 0.002, 0.003]), model.config, peer),
    prefillRow(measured([8, 1024], [0.008]), model.config, peer),
  ];

  test("are of the median, beside the peer's same case", () => {
    expect(rows[0]).toMatchObject({
      ms: 3,
      ms_mean: expect.closeTo(3, 12),
      ms_p90: expect.closeTo(3.8, 12),
      ms_first: 9000,
      ms_host: expect.closeTo(0.3, 12),
      tokens_per_s: expect.closeTo(512 / 0.003, 6),
      peers: [{ peer: "hf", dtype: "f16", ms: 1, tokens_per_s: 512_000, ratio: expect.closeTo(1 / 3, 12) }],
    });
    expect(rows[0]!.tflops_per_s).toBeCloseTo(prefillFlops(model.config, [1, 512]) / 0.003 / 1e12, 12);
    expect(rows[1]!.peers).toEqual([]);
  });

  test("compare a short prompt with its share of a full batch, where both are there", () => {
    expect(firstTokenRatio(rows)).toBeCloseTo(3 / ((8 / 8192) * 512), 12);
    expect(firstTokenRatio(rows.slice(1))).toBeNull();
  });

  const { model: description, options: _, runs: __, ...environment } = sampleMeasured();
  const results: PrefillResults = {
    schema: PREFILL_SCHEMA,
    ...environment,
    model: description,
    options: {
      cases: [
        [1, 512],
        [8, 1024],
      ],
      num_iters_warmup: 1,
      num_iters: 3,
      kv: "paged",
      page_size: 16,
      prefill_chunk: 2048,
      seed: "0",
      kernels: "auto",
      peer: "hf.json",
    },
    rows,
    failures: [{ prefill: [16, 1024], message: "OOM" }],
    first_token_ratio: firstTokenRatio(rows),
    incomplete: "1 of the cases failed",
  };

  test("fit the schema, which keeps every field in its order", () => {
    expect(JSON.stringify(PREFILL_RESULTS.parse(results))).toBe(JSON.stringify(results));
    expect(PREFILL_RESULTS.safeParse({ ...results, schema: "quire-bench-prefill/0" }).success).toBe(false);
  });

  test("are told in plain text, and what failed with them", () => {
    const text = prefillText(results);
    expect(text).toMatch(/^ 1x512 +3\.000 +3\.000 +3\.800 +9000 +0\.3000 +170,667 /m);
    expect(text).toMatch(/^ 1x512 +hf f16 +1\.000 +512,000 +0\.33×$/m);
    expect(text).toContain("memory of 8x1024: weights 1.0 MiB, kv 2.0 MiB");
    expect(text).toContain("Time of 1x512 by that of 512 tokens in 8x1024: 6.00×");
    expect(text).toContain("FAILED: 16x1024: OOM");
  });

  test("are drawn: a bar for each case, and one for the peer where it has the case", () => {
    const [chart] = prefillCharts(results, LIGHT);
    expect(chart!.option.series).toMatchObject([
      { name: "quire f32", data: [170_667, 1_024_000] },
      { name: "hf f16", data: [512_000, null] },
    ]);
    expect(chartSvg(chart!)).toContain("hf f16");
    expect(prefillCharts({ ...results, rows: [] }, LIGHT)).toEqual([]);
  });
});

describe("what the user writes", () => {
  test("cases", () => {
    expect(parseCases("1x128, 8X1024,2×3")).toEqual([
      [1, 128],
      [8, 1024],
      [2, 3],
    ]);
    for (const text of ["", "1x", "0x5", "5x0", "1x2,", "1x2x3", "-1x2", "1.5x2"])
      expect(() => parseCases(text), text).toThrow(BadInput);
  });
  test.each([
    ["no JSON", "{", /^--peer hf\.json: no JSON/],
    ["no list", "{}", /no list of rows/],
    ["nothing of prefill", '[{"peer":"hf"}, null, 3]', /no row has a prefill/],
    ["half a row", '[{"prefill":[1,2],"dtype":"float32"}]', /prefill row 1: ms: /],
  ])("a peer's file with %s is refused with its name", (_, text, message) => {
    expect(() => parsePeer(text, "hf.json")).toThrow(BadInput);
    expect(() => parsePeer(text, "hf.json")).toThrow(message);
  });
});
