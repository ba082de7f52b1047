import { afterAll, describe, expect, test } from "vitest";
import { generate } from "../../src/generate/generate.ts";
import { Sequence } from "../../src/generate/sequence.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { CACHE_MODES, type CacheMode } from "../../src/kv/cache.ts";
import { batchProducts } from "../../src/model/batch-products.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { PRODUCTS } from "../../src/model/linear.ts";
import { matmul } from "../../src/ops/matmul.ts";
import { matvec } from "../../src/ops/matvec.ts";
import { Tensor } from "../../src/tensor.ts";
import { randomFloats } from "../values.ts";
import { cacheFor, TINY, tokensOf } from "./tiny.ts";

// On a GPU a prompt goes through kernels whose sums have an order of their own, and what follows it through those of a decode
// step, with split sums. The software adapter's own sizes would hide a difference, so the GPU's are used here, whatever it is.

const gpu = await Gpu.open({ forms: "gpu", profile: "fast" });
const model = await Gpt2.load(gpu, TINY);
afterAll(() => gpu.close());
const V = model.config.vocabSize;

describe("matmul by blocks and matvec give the same bits", () => {
  test.each([
    { rows: 20, K: 192, N: 72, why: "shares of one and two quads" },
    { rows: 5, K: 67, N: 33, why: "fewer quads than shares, odd depth" },
    { rows: 17, K: 768, N: 64, why: "GPT-2's width" },
  ])("[$rows, $K] x [$K, $N]: $why", async ({ rows, K, N }) => {
    const x = Tensor.from(gpu, [rows, K], randomFloats(1, rows * K));
    const w = Tensor.from(gpu, [K, N], randomFloats(2, K * N));
    const bias = Tensor.from(gpu, [N], randomFloats(3, N));
    for (const epilogue of [undefined, "gelu-tanh", "gelu-erf"] as const) {
      const many = matmul(x, w, bias, epilogue, { tier: "blocks" });
      const few = matvec(x, w, bias, epilogue);
      expect(await many.read()).toEqual(await few.read());
      many.free();
      few.free();
    }
    for (const t of [x, w, bias]) t.free();
  });
});

/** How many new tokens each of three sequences has in each step, and how many of them are of its prompt. */
type Schedule = readonly (readonly (readonly [tokens: number, prompt: number])[])[];

/** Logits of each step, a row for each sequence. A cache that forgets is given all tokens again. */
async function logitsOf(mode: CacheMode, schedule: Schedule): Promise<Float32Array[]> {
  const cache = cacheFor(gpu, model, mode, 3, { pageSize: 8 });
  const sequences = schedule[0]!.map((_, s) => ({
    place: cache.open(),
    all: tokensOf(s, 40),
    done: 0,
    prompt: 0,
  }));
  const rows: Float32Array[] = [];
  for (const step of schedule) {
    const items = step.map(([count, ofPrompt], s) => {
      const sequence = sequences[s]!;
      const from = cache.remembers ? sequence.done : 0;
      sequence.done += count;
      sequence.prompt += ofPrompt;
      const prompt = cache.remembers ? ofPrompt : sequence.prompt;
      return { place: sequence.place, tokens: sequence.all.slice(from, sequence.done), prompt };
    });
    const logits = model.forward(cache, items);
    rows.push(await logits.read());
    logits.free();
  }
  cache.free();
  return rows;
}

const DECODE = [1, 0] as const;

describe("forward passes", () => {
  test("sum prompts in an order of their own", () => {
    expect(batchProducts(model)).not.toBe(PRODUCTS);
  });

  test("give the same bits in all modes: prompts, then tokens one by one", async () => {
    const prompts = [20, 1, 7].map((count) => [count, count] as const);
    const schedule = [prompts, [DECODE, DECODE, DECODE], [DECODE, DECODE, DECODE]];
    const none = await logitsOf("none", schedule);
    for (const mode of ["contiguous", "paged"] as const) expect(await logitsOf(mode, schedule)).toEqual(none);
    // What follows a prompt is not computed as a prompt is: the bits say so.
    const asPrompts = schedule.map((step) => step.map(([count]) => [count, count] as const));
    const [first, second] = await logitsOf("none", asPrompts);
    expect(first).toEqual(none[0]);
    expect(second).not.toEqual(none[1]);
  });

  test("give the same bits for prompts in pieces, and for several tokens behind prompts at once", async () => {
    const whole = await logitsOf("none", [[[25, 20]], [[2, 0]]]);
    const pieces = await logitsOf("paged", [[[3, 3]], [[1, 1]], [[21, 16]], [[2, 0]]]);
    expect(pieces.slice(2)).toEqual(whole);
    const apart = await logitsOf("contiguous", [[[20, 20]], [[4, 0]], [[1, 0]], [[1, 0]], [[1, 0]]]);
    expect([apart[2], apart[4]]).toEqual(whole);
  });

  test("give a sequence alone what it gets among others", async () => {
    const lengths = [9, 18, 2];
    const together = await logitsOf("none", [lengths.map((count) => [count + 3, count] as const)]);
    for (const [s, count] of lengths.entries()) {
      const cache = cacheFor(gpu, model, "none", 1);
      const items = [{ place: cache.open(), tokens: tokensOf(s, count + 3), prompt: count }];
      const logits = model.forward(cache, items);
      expect(await logits.read()).toEqual(together[0]!.slice(s * V, (s + 1) * V));
      logits.free();
      cache.free();
    }
  });
});

describe("generated tokens are the same in all modes, for a batch of three", () => {
  const run = async (mode: CacheMode, temperature: number, prefillChunk?: number) => {
    const cache = cacheFor(gpu, model, mode, 3, { pageSize: 8 });
    const sequences = [20, 1, 7].map(
      (count, id) =>
        new Sequence({
          ...{ prompt: tokensOf(id, count), maxNewTokens: 5 + id, contextLength: model.config.contextLength },
          ...{ sampling: { temperature, seed: 5 }, id, ignoreEos: true },
        }),
    );
    const options = prefillChunk ? { prefillChunk } : {};
    for await (const _ of generate(model, cache, sequences, options)) {
      // Only the tokens at the end matter.
    }
    cache.free();
    return sequences.map(({ tokens }) => [...tokens]);
  };

  test.each([
    { how: "greedy", temperature: 0 },
    { how: "sampled", temperature: 1 },
  ])("$how", async ({ temperature }) => {
    const none = await run("none", temperature);
    for (const mode of CACHE_MODES.slice(1)) {
      expect(await run(mode, temperature), mode).toEqual(none);
      expect(await run(mode, temperature, 4), `${mode}, prompts in pieces`).toEqual(none);
    }
  });
});
