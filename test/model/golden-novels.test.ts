import process from "node:process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Gpu } from "../../src/gpu/gpu.ts";
import {
  allLogits,
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

  it("the logits after all prompts, computed as one ragged batch: golden, and the same bits in every mode", async () => {
    const prompts = novels.json.prompts.map((p) => p.ids);
    for (const { maxAbs, nmse } of await novelsLogits(novels, "none")) {
      expect(maxAbs).toBeLessThanOrEqual(LOGITS.maxAbs);
      expect(nmse).toBeLessThanOrEqual(LOGITS.nmse);
      largestError = Math.max(largestError, maxAbs);
    }
    const none = await lastLogits(novels.model, "none", prompts);
    expect(await lastLogits(novels.model, "contiguous", prompts)).toEqual(none);
    expect(await lastLogits(novels.model, "paged", prompts)).toEqual(none);
  });

  it.each(["contiguous", "paged"] as const)(
    "64 greedy tokens of all prompts, cache %s",
    SLOW,
    async (mode) => {
      expect(await novelsGreedy(novels, mode)).toEqual(novels.json.prompts.map(() => null));
    },
  );

  // Without a cache a step computes everything again, so it takes a few, and one step that is given all 64 tokens shows the
  // other choices.
  it("64 greedy tokens of all prompts, cache none: chosen step by step, and in one step that is given them", async () => {
    const wanted = novels.json.prompts.map(() => null);
    expect(await novelsGreedy(novels, "none", { count: 4 })).toEqual(wanted);
    expect(await novelsChoices(novels, "none")).toEqual(wanted);
  });

  it("the perplexity of the first window, a full context", SLOW, async () => {
    const { count, relativeError } = await novelsPerplexity(novels, "paged");
    expect(count).toBe(1024);
    expect(relativeError).toBeLessThanOrEqual(PERPLEXITY);
  });

  // A window of 1,024 takes 10 seconds in each mode. Attention over contexts of 1,024 has the same bits in strips and in
  // pages too: test/ops/paged-attention.test.ts.
  it("160 tokens of the window, more than a chunk of 128, have the same bits in every mode", async () => {
    const ids = novels.json.perplexity.ids.slice(0, 160);
    const none = await allLogits(novels.model, "none", ids);
    expect(await allLogits(novels.model, "contiguous", ids)).toEqual(none);
    expect(await allLogits(novels.model, "paged", ids)).toEqual(none);
  });

  it("no choice between two tokens is closer than the error of the logits", () => {
    // numerics.md would excuse a greedy token where the golden margin is below twice the error; no prompt needs that.
    expect(largestError).toBeGreaterThan(0);
    for (const { min_margin: margin } of novels.json.prompts)
      expect(margin).toBeGreaterThan(2 * largestError);
  });
});
