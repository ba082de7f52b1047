import process from "node:process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Gpu } from "../../src/gpu/gpu.ts";
import { CACHE_MODES } from "../../src/kv/cache.ts";
import {
  lastLogits,
  loadNovels,
  type Novels,
  novelsChoices,
  novelsGreedy,
  novelsIds,
  novelsLogits,
  novelsPerplexity,
} from "../golden-check.ts";

// The trained models against Hugging Face's float64: from a prompt's text to 64 greedy tokens, and a full context.

/** A window of 1,024 tokens: some 10 seconds on two idle cores. */
const SLOW = { timeout: 300_000 };

/** numerics.md, whole model: largest absolute error of a logit, and relative error of a perplexity's exponent. */
const LOGITS = { nmse: 1e-9, maxAbs: 1e-3 };
const PERPLEXITY = 1e-5;

// The fast profile halves the time on a CPU. What it leaves out, the checks of the safe one, is on in golden-tiny and in
// the tests of every op, which run the same kernels.
const { QUIRE_TEST_ADAPTER: adapter = "auto", QUIRE_TEST_KERNELS } = process.env;
const kernels = QUIRE_TEST_KERNELS === "portable" ? "portable" : "auto";
const gpu = await Gpu.open({ adapter, kernels, profile: "fast" });
afterAll(() => gpu.close());

describe.each(["en", "zh"] as const)("novels-%s", (language) => {
  let novels: Novels;
  /** Largest error of a logit in any mode. */
  let largestError = 0;

  beforeAll(async () => {
    novels = await loadNovels(gpu, language);
  });
  afterAll(() => novels.model.free());

  it("the prompts become the golden ids", () => {
    expect(novelsIds(novels)).toEqual(novels.json.prompts.map(() => null));
  });

  describe.each(CACHE_MODES)("cache %s", (mode) => {
    it("the logits after all prompts, computed as one ragged batch", async () => {
      for (const { maxAbs, nmse } of await novelsLogits(novels, mode)) {
        expect(maxAbs).toBeLessThanOrEqual(LOGITS.maxAbs);
        expect(nmse).toBeLessThanOrEqual(LOGITS.nmse);
        largestError = Math.max(largestError, maxAbs);
      }
    });

    // Without a cache a step computes everything again, so it takes 16. The test after this one shows all 64 choices of all
    // prompts in every mode, with the same kernels.
    const batch = mode === "none" ? 16 : 64;
    it(`${batch} greedy tokens of all prompts, a batch that goes step by step`, SLOW, async () => {
      const wanted = novels.json.prompts.map(() => null);
      expect(await novelsGreedy(novels, mode, { count: batch })).toEqual(wanted);
    });
    it("64 greedy tokens of all prompts, chosen in one step that is given them", async () => {
      expect(await novelsChoices(novels, mode)).toEqual(novels.json.prompts.map(() => null));
    });

    // 12 seconds each: for one of the models in every mode, for the other in one.
    if (language === "en" || mode === "paged")
      it("the perplexity of the first window", SLOW, async () => {
        const { count, relativeError } = await novelsPerplexity(novels, mode);
        expect(count).toBe(1024);
        expect(relativeError).toBeLessThanOrEqual(PERPLEXITY);
      });
  });

  it("the modes give the same bits", async () => {
    const prompts = novels.json.prompts.map((p) => p.ids);
    const none = await lastLogits(novels.model, "none", prompts);
    expect(await lastLogits(novels.model, "contiguous", prompts)).toEqual(none);
    expect(await lastLogits(novels.model, "paged", prompts)).toEqual(none);
  });

  it("no choice between two tokens is closer than the error of the logits", () => {
    // numerics.md would excuse a greedy token where the golden margin is below twice the error; no prompt needs that.
    expect(largestError).toBeGreaterThan(0);
    for (const { min_margin: margin } of novels.json.prompts)
      expect(margin).toBeGreaterThan(2 * largestError);
  });
});
