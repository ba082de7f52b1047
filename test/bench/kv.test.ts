import { afterAll, afterEach, describe, expect, test, vi } from "vitest";
import { type KvBenchOptions, measureKv } from "../../src/bench/kv.ts";
import { neededPages } from "../../src/bench/kv-batch.ts";
import { compareTokens } from "../../src/bench/summarize.ts";
import { DeviceLost, GpuError, OutOfMemory } from "../../src/gpu/errors.ts";
import { PURPOSES } from "../../src/gpu/memory.ts";
import { CACHE_MODES, type CacheMode, slotBytes, sum } from "../../src/kv/cache.ts";
import { loadNovels } from "../golden-check.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";
import { beforeSteps } from "./before-steps.ts";

const gpu = await openTestGpu();
const { model, tokenizer, json } = await loadNovels(gpu, "en");
afterAll(() => model.free());
afterEach(() => {
  vi.restoreAllMocks();
});

const PROMPT = json.prompts[0]!.ids;
const NEW_TOKENS = 3;

const measure = (options: Partial<KvBenchOptions> = {}) =>
  measureKv(model, tokenizer, {
    modes: CACHE_MODES,
    promptIds: PROMPT,
    newTokens: NEW_TOKENS,
    sampling: { temperature: 0, seed: 0 },
    ignoreEos: true,
    repeat: 1,
    warmup: 0,
    kvDtype: "f32",
    pageSize: 8,
    timing: "visible",
    ...options,
  });

/** Throw `error` in the n-th step of a mode, from 1. */
function failAt(mode: CacheMode, step: number, error: Error): void {
  let steps = 0;
  beforeSteps((current) => {
    if (current === mode && ++steps === step) throw error;
  });
}

const names = (runs: readonly { mode: CacheMode; repeat: number }[]) =>
  runs.map(({ mode, repeat }) => `${mode} ${repeat}`);

describe("measureKv", () => {
  test("an error that comes between two runs keeps what was measured", async () => {
    const trim = gpu.trim.bind(gpu);
    let calls = 0;
    vi.spyOn(gpu, "trim").mockImplementation(() => {
      if (++calls === 2) throw new GpuError("WebGPU: late");
      trim();
    });
    const { runs, error } = await measure();
    expect(error?.message).toBe("WebGPU: late");
    expect(names(runs)).toEqual(["none 1", "paged 1"]);
  });

  test("gives the golden tokens in every mode, and what each step computed, saw and held", async () => {
    const { runs, error } = await measure({ maxSeqLen: 32 });
    expect(error).toBeUndefined();
    expect(names(runs)).toEqual(["none 1", "contiguous 1", "paged 1"]);
    const bytes = slotBytes(model.cacheShape("f32"));
    const P = PROMPT.length;
    for (const { mode, tokens, text, finishReason, steps } of runs) {
      expect(tokens).toEqual(json.prompts[0]!.greedy.slice(0, NEW_TOKENS));
      expect([text, finishReason]).toEqual([tokenizer.decode(tokens), "length"]);
      expect(steps.map((s) => s.step)).toEqual([1, 2, 3]);
      expect(steps.map((s) => s.tokenId)).toEqual(tokens);
      expect(steps.map((s) => s.contextLength)).toEqual([P, P + 1, P + 2]);
      expect(steps.map((s) => s.newTokensComputed)).toEqual(mode === "none" ? [P, P + 1, P + 2] : [P, 1, 1]);
      // 7, 8, then 9 tokens: the third step's page of 8 is there before it, since the GPU looks up its next slot by itself.
      const held = { none: [0, 0, 0], contiguous: [32, 32, 32], paged: [8, 16, 16] }[mode];
      expect(steps.map((s) => s.kvReservedBytes / bytes)).toEqual(held);
      const used = mode === "none" ? [0, 0, 0] : [P, P + 1, P + 2];
      expect(steps.map((s) => s.kvUsedBytes / bytes)).toEqual(used);
      // The strip; or pages for the prompt and three tokens, and the null page.
      const allocated = { none: 0, contiguous: 32, paged: 24 }[mode];
      expect(steps.map((s) => s.kvAllocatedBytes / bytes)).toEqual([allocated, allocated, allocated]);
    }
  });

  test("accounts for every byte and every second", async () => {
    const { runs } = await measure();
    for (const run of runs) {
      expect(run.totalSeconds).toBeGreaterThanOrEqual(sum(run.steps.map((s) => s.seconds)));
      expect(run.timeToFirstTokenSeconds).toBeGreaterThanOrEqual(run.steps[0]!.seconds);
      expect(run.timeToFirstTokenSeconds).toBeLessThanOrEqual(run.totalSeconds);
      expect(run.peakBytes).toBe(Math.max(...run.steps.map((s) => s.gpuPeakBytes)));
      for (const step of run.steps) {
        expect(sum(PURPOSES.map((p) => step.memoryByPurpose[p]))).toBe(step.gpuMemoryBytes);
        expect(step.memoryByPurpose.kv).toBe(step.kvAllocatedBytes);
        for (const p of PURPOSES)
          expect(run.peakByPurpose[p]).toBeGreaterThanOrEqual(step.memoryByPurpose[p]);
      }
    }
  });

  test("does the warm-ups first, then repeat by repeat all modes in turn", async () => {
    const order: string[] = [];
    const modes = ["paged", "none"] as const;
    const { runs } = await measure({
      modes,
      newTokens: 1,
      repeat: 2,
      warmup: 1,
      onStep: (mode, done) => order.push(`${mode} ${done}`),
    });
    expect(order).toEqual(["paged 1", "none 2", "paged 3", "none 4", "paged 5", "none 6"]);
    expect(names(runs)).toEqual(["paged 1", "none 1", "paged 2", "none 2"]);
  });

  test("times steps one by one, or as shares of a round; without a cache always one by one", async () => {
    for (const timing of ["visible", "pipelined"] as const) {
      const { runs, error } = await measure({ timing, newTokens: 6 });
      expect(error).toBeUndefined();
      expect(runs.map((r) => r.timing)).toEqual(["visible", timing, timing]);
      expect(compareTokens(runs)).toEqual({ identical: true, runs: 3, tokens: 6 });
      for (const run of runs) {
        expect(run.tokens).toEqual(json.prompts[0]!.greedy.slice(0, 6));
        expect(run.surplus).toBe(0);
        expect(run.steps.map((s) => s.contextLength)).toEqual(
          Array.from({ length: 6 }, (_, i) => PROMPT.length + i),
        );
        for (const s of run.steps) expect(s.seconds).toBeGreaterThan(0);
        expect(run.totalSeconds).toBeGreaterThanOrEqual(sum(run.steps.map((s) => s.seconds)) * (1 - 1e-9));
      }
    }
  });

  test("gives a seed the same tokens in every mode and repeat, and another seed others", async () => {
    const sampled = async (seed: number | bigint, options: Partial<KvBenchOptions>) =>
      (await measure({ sampling: { temperature: 1.5, seed }, ...options })).runs;
    const first = await sampled(2n ** 64n - 1n, { repeat: 2, newTokens: 2 });
    expect(compareTokens(first)).toEqual({ identical: true, runs: 6, tokens: 2 });
    const [other] = await sampled(5, { modes: ["paged"], newTokens: 2 });
    expect(other!.tokens).not.toEqual(first[0]!.tokens);
  });

  test("gives every sequence of a batch the same tokens in every mode, and sequence 0 those of a batch of 1", async () => {
    const sampling = { temperature: 1, seed: 3 };
    // The least pool that will do.
    const needed = neededPages(PROMPT.length, [6, 4, 2], 8);
    const options = { sampling, batch: 3, newTokens: 6, maxSeqLen: 32, kvPages: needed };
    const { runs, error } = await measure(options);
    expect(error).toBeUndefined();
    expect(compareTokens(runs)).toEqual({ identical: true, runs: 3, tokens: 12, sequences: 3 });
    const bytes = slotBytes(model.cacheShape("f32"));
    const running = [3, 3, 2, 2, 1, 1];
    for (const { mode, steps, sequences, tokens, text, finishReason } of runs) {
      expect(sequences!.map((s) => [s.id, s.newTokens, s.tokens.length, s.finishReason])).toEqual([
        [0, 6, 6, "length"],
        [1, 4, 4, "length"],
        [2, 2, 2, "length"],
      ]);
      expect(sequences![0]).toMatchObject({ tokens, text, finishReason });
      expect(new Set(sequences!.map((s) => s.tokens.slice(0, 2).join())).size).toBeGreaterThan(1);
      expect(steps.map((s) => s.sequences)).toEqual(running);
      expect(steps.map((s) => s.tokenId)).toEqual(tokens);
      const contexts = running.map((_, i) => PROMPT.length + i);
      const computed = running.map((n, i) => n * (i === 0 || mode === "none" ? contexts[i]! : 1));
      expect(steps.map((s) => s.newTokensComputed)).toEqual(computed);
      const used = running.map((n, i) => (mode === "none" ? 0 : n * contexts[i]!));
      expect(steps.map((s) => s.kvUsedBytes / bytes)).toEqual(used);
      const reserved = steps.map((s) => s.kvReservedBytes / bytes);
      if (mode === "contiguous") expect(reserved).toEqual(running.map((n) => 32 * n));
      // All of the pool at its fullest, less as sequences end.
      if (mode === "paged") expect([Math.max(...reserved), reserved.at(-1)]).toEqual([8 * needed, 16]);
      const allocated = { none: 0, contiguous: 3 * 32, paged: 8 * (needed + 1) }[mode];
      expect(steps[0]!.kvAllocatedBytes / bytes).toBe(allocated);
    }
    const alone = await measure({ ...options, batch: 1, modes: ["contiguous"] });
    expect(alone.runs[0]!.tokens).toEqual(runs[0]!.tokens);
    expect("sequences" in alone.runs[0]!).toBe(false);
  });

  test("of a batch that breaks off keeps what each sequence has", async () => {
    failAt("paged", 3, new OutOfMemory("OOM: no room"));
    const { runs, error } = await measure({ modes: ["paged"], batch: 3, newTokens: 3 });
    expect(error).toBeInstanceOf(OutOfMemory);
    expect(runs[0]!.finishReason).toBe("error");
    expect(runs[0]!.sequences!.map((s) => [s.tokens.length, s.finishReason])).toEqual([
      [2, "error"],
      [2, "length"],
      [1, "length"],
    ]);
  });

  test("keeps what a failing mode measured, leaves the mode out from then on, and goes on with the others", async () => {
    failAt("contiguous", 2, new OutOfMemory("OOM: no room"));
    const { runs, error } = await measure({ repeat: 2, newTokens: 2 });
    expect(error).toBeInstanceOf(OutOfMemory);
    expect(names(runs)).toEqual(["none 1", "contiguous 1", "paged 1", "none 2", "paged 2"]);
    const broken = runs[1]!;
    expect([broken.finishReason, broken.steps.length, broken.tokens.length]).toEqual(["error", 1, 1]);
  });

  test("keeps no run that has no step", async () => {
    failAt("none", 1, new OutOfMemory("OOM: no room"));
    const { runs, error } = await measure({ newTokens: 1 });
    expect(error).toBeInstanceOf(OutOfMemory);
    expect(names(runs)).toEqual(["contiguous 1", "paged 1"]);
  });

  test("ends when the device is gone", async () => {
    failAt("contiguous", 1, new DeviceLost("gone"));
    const { runs, error } = await measure();
    expect(error).toBeInstanceOf(DeviceLost);
    expect(names(runs)).toEqual(["none 1"]);
  });

  test("ends after the step in which it is aborted, and keeps that", async () => {
    const controller = new AbortController();
    const reason = new Error("Ctrl-C");
    const { runs, error } = await measure({
      signal: controller.signal,
      onStep: (_, done) => done === NEW_TOKENS + 2 && controller.abort(reason),
    });
    expect(error).toBe(reason);
    expect(names(runs)).toEqual(["none 1", "contiguous 1"]);
    expect(runs.map((r) => [r.finishReason, r.steps.length])).toEqual([
      ["length", 3],
      ["error", 2],
    ]);
  });

  test("gives all memory back, also when a mode fails", async () => {
    await expectLedgerUnchanged(gpu, async () => {
      failAt("paged", 2, new OutOfMemory("OOM: no room"));
      await measure({ modes: ["contiguous", "paged"], newTokens: 2 });
      vi.restoreAllMocks();
    });
  });
});
