import { afterAll, describe, expect, test, vi } from "vitest";
import { BadInput } from "../../src/check.ts";
import {
  logProbability,
  type PerplexityOptions,
  perplexity,
  type Window,
} from "../../src/generate/perplexity.ts";
import { OutOfMemory } from "../../src/gpu/errors.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { CACHE_MODES, type CacheMode } from "../../src/kv/cache.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { allLogits } from "../golden-check.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";
import { cacheFor, TINY, tokensOf } from "../model/tiny.ts";

const gpu = await openTestGpu();
const model = await Gpt2.load(gpu, TINY);
afterAll(() => model.free());

const { contextLength, vocabSize } = model.config;

/** A text longer than the tiny model's context of 64, and than the 64 rows of logits that are read at a time. */
const IDS = tokensOf(3, 150);

async function measure(ids: readonly number[], options: PerplexityOptions = {}, mode: CacheMode = "paged") {
  const cache = cacheFor(gpu, model, mode, 1);
  try {
    const result = await perplexity(model, cache, ids, options);
    expect(cache.usage()).toMatchObject({ reserved: 0, used: 0 });
    return result;
  } finally {
    cache.free();
  }
}

/** −log p(ids[at] | ids[start … at - 1]), from the logits of that piece of the text alone. */
async function lossOf(start: number, at: number): Promise<number> {
  const values = await allLogits(model, "none", IDS.slice(start, at));
  return -logProbability(values.subarray(-vocabSize), IDS[at]!);
}

const places = (windows: readonly Window[]) => windows.map(({ start, count }) => [start, count]);

describe("perplexity", () => {
  test.each(CACHE_MODES)("is e to the mean loss of every token but the first, cache %s", async (mode) => {
    const { windows, count, meanNll, perplexity } = await measure(IDS, {}, mode);
    expect(places(windows)).toEqual([
      [0, 64],
      [64, 64],
      [128, 21],
    ]);
    expect(count).toBe(IDS.length - 1);
    const total = windows.reduce((sum, { nll }) => sum + nll, 0);
    expect(meanNll).toBeCloseTo(total / 149, 12);
    expect(perplexity).toBeCloseTo(Math.exp(meanNll), 12);
  });

  test.each(CACHE_MODES)("is the same bit for bit with windows in pieces, cache %s", async (mode) => {
    const options = { windowLength: 20, stride: 8, maxWindows: 3 };
    const whole = await measure(IDS, options, mode);
    for (const prefillChunk of [1, 7, 20])
      expect(await measure(IDS, { ...options, prefillChunk }, mode)).toEqual(whole);
  });

  test("predicts the token after each of a window's, from the window's tokens alone", async () => {
    const { windows } = await measure(IDS.slice(0, 9), { windowLength: 4 });
    expect(places(windows)).toEqual([
      [0, 4],
      [4, 4],
    ]);
    for (const { start, nll } of windows) {
      let sum = 0;
      for (let at = start + 1; at <= start + 4; at++) sum += await lossOf(start, at);
      expect(nll).toBeCloseTo(sum, 3);
    }
  });

  test("with a stride counts each token once, in the first window that sees it", async () => {
    const { windows, count } = await measure(IDS.slice(0, 12), { windowLength: 6, stride: 2 });
    expect(places(windows)).toEqual([
      [0, 6],
      [2, 2],
      [4, 2],
      [6, 1],
    ]);
    expect(count).toBe(11);
    expect(windows[1]!.nll).toBeCloseTo((await lossOf(2, 7)) + (await lossOf(2, 8)), 3);
    expect(windows[3]!.nll).toBeCloseTo(await lossOf(6, 11), 3);
  });

  test("with the stride as long as the window is what it is without one", async () => {
    const ids = IDS.slice(0, 40);
    expect(await measure(ids, { windowLength: 16, stride: 16 })).toEqual(
      await measure(ids, { windowLength: 16 }),
    );
  });

  test("ends after maxWindows, and tells of each window as it is done", async () => {
    const told: [Window, number, number][] = [];
    const { windows, count } = await measure(IDS, {
      windowLength: 8,
      maxWindows: 2,
      onWindow: (...window) => told.push(window),
    });
    expect([windows.length, count]).toEqual([2, 16]);
    expect(told).toEqual(windows.map((window, i) => [window, i + 1, 2]));
  });

  test("ends before the next window when it is aborted, with those before", async () => {
    const controller = new AbortController();
    const options = { windowLength: 8, signal: controller.signal, onWindow: () => controller.abort() };
    const { windows, perplexity } = await measure(IDS, options);
    expect(windows).toHaveLength(1);
    expect(perplexity).toBeGreaterThan(1);
  });

  test("two tokens are enough, and the whole context fits into one window", async () => {
    expect(places((await measure(IDS.slice(0, 2))).windows)).toEqual([[0, 1]]);
    expect(places((await measure(IDS.slice(0, contextLength + 1))).windows)).toEqual([[0, contextLength]]);
  });

  test("gives back all memory that it takes", async () => {
    await expectLedgerUnchanged(gpu, async () => {
      await measure(IDS.slice(0, 20), { windowLength: 8, stride: 4 });
    });
  });
});

describe("perplexity refuses", () => {
  test.each([
    [[], {}, /has 0 tokens; at least 2/],
    [[5], {}, /has 1 tokens; at least 2/],
    [[5, 6, vocabSize], {}, /token id 131, token 3 of the text, is out of vocabulary \(0\.\.130\)/],
    [[5, -1, 6], {}, /token id -1, token 2 /],
    [[5, 1.5], {}, /token id 1\.5/],
    [IDS, { windowLength: 65 }, /--window is 65; wanted 1 to the model's context of 64/],
    [IDS, { windowLength: 0 }, /--window is 0/],
    [IDS, { windowLength: 8, stride: 9 }, /--stride is 9; wanted 1 to the window of 8/],
    [IDS, { stride: 0 }, /--stride is 0/],
  ])("case %#, before anything is computed", async (ids, options, message) => {
    const error: Error = await measure(ids, options).then(
      () => expect.fail("nothing was thrown"),
      (thrown) => thrown,
    );
    expect(error).toBeInstanceOf(BadInput);
    expect(error.message).toMatch(message);
  });

  test("a cache that the device had no room for, before the first window", async () => {
    const none = await Gpu.open({ backend: "null" });
    try {
      const empty = await Gpt2.load(none, TINY);
      const cache = cacheFor(none, empty, "paged", 1);
      // More than the null backend has: it says so a while after.
      for (let i = 0; i < 4; i++) none.memory.alloc(128 * 2 ** 20, "kv", `block ${i}`);
      const hidden = vi.spyOn(empty, "hidden");
      await expect(perplexity(empty, cache, IDS)).rejects.toBeInstanceOf(OutOfMemory);
      expect(hidden).not.toHaveBeenCalled();
    } finally {
      await none.close();
    }
  });
});

describe("logProbability", () => {
  test("is the log of the softmax, also of logits that would overflow it", () => {
    const p = [0.5, 0.25, 0.25];
    const logits = Float32Array.from(p, (x) => Math.log(x) + 1000);
    p.forEach((x, i) => {
      expect(logProbability(logits, i)).toBeCloseTo(Math.log(x), 3);
    });
  });
});
