import { afterAll, describe, expect, test } from "vitest";
import { BadInput } from "../../src/check.ts";
import { type GeneratedStep, type GenerateOptions, generate } from "../../src/generate/generate.ts";
import { Sequence, type SequenceOptions } from "../../src/generate/sequence.ts";
import { CACHE_MODES, type CacheMode, type KvCache, slotBytes } from "../../src/kv/cache.ts";
import type { CacheOptions } from "../../src/kv/make-cache.ts";
import { OutOfPages } from "../../src/kv/page-allocator.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";
import { cacheFor, goldenTensor, TINY, tokensOf } from "../model/tiny.ts";

const gpu = await openTestGpu();
const model = await Gpt2.load(gpu, TINY);
afterAll(() => model.free());

const GREEDY = { temperature: 0, seed: 0 };
const SLOT = slotBytes(model.cacheShape("f32"));

const sequence = (options: Partial<SequenceOptions>): Sequence =>
  new Sequence({
    prompt: tokensOf(1, 9),
    maxNewTokens: 5,
    contextLength: model.config.contextLength,
    sampling: GREEDY,
    ...options,
  });

/** Run to the end with a cache of its own, which must be empty then: the steps. */
async function run(
  mode: CacheMode,
  sequences: readonly Sequence[],
  options: Partial<CacheOptions> & GenerateOptions = {},
): Promise<GeneratedStep[]> {
  const cache = cacheFor(gpu, model, mode, sequences.length, options);
  try {
    const steps: GeneratedStep[] = [];
    for await (const step of generate(model, cache, sequences, options)) steps.push(step);
    expect(cache.usage()).toMatchObject({ reserved: 0, used: 0, wasted: 0 });
    return steps;
  } finally {
    cache.free();
  }
}

const generated = (s: Sequence): number[] => s.tokens.slice(s.promptLength);

/** Greedy tokens of a prompt, alone and without a cache. */
async function greedy(prompt: readonly number[], count: number): Promise<number[]> {
  const alone = sequence({ prompt, maxNewTokens: count });
  await run("none", [alone]);
  return generated(alone);
}

/** Every id as a word. */
const words = () => ({ push: (id: number) => `${id} `, end: () => "" });

describe.each(CACHE_MODES)("greedy, cache %s", (mode) => {
  test("the golden model's likeliest token after every length of the golden prompt", async () => {
    const ids = [...(await goldenTensor("tiny/golden.safetensors", "input_ids"))];
    const logits = await goldenTensor("tiny/golden.safetensors", "logits");
    const V = model.config.vocabSize;
    const sequences = ids.map((_, i) => sequence({ prompt: ids.slice(0, i + 1), maxNewTokens: 1 }));
    await run(mode, sequences);
    const expected = ids.map((_, i) => {
      const row = logits.subarray(i * V, (i + 1) * V);
      return row.indexOf(Math.max(...row));
    });
    expect(sequences.map((s) => generated(s)[0])).toEqual(expected);
  });

  test("sequences of different lengths, done at different steps, get what each gets alone", async () => {
    const plan = [
      [5, 3],
      [17, 12],
      [2, 1],
      [9, 7],
    ] as const;
    const prompts = plan.map(([length], i) => tokensOf(i, length));
    const sequences = plan.map(([, count], i) =>
      sequence({ id: i, prompt: prompts[i]!, maxNewTokens: count }),
    );
    const steps = await run(mode, sequences);
    for (const [i, [, count]] of plan.entries())
      expect(generated(sequences[i]!)).toEqual(await greedy(prompts[i]!, count));
    expect(sequences.map((s) => s.finishReason)).toEqual(Array(4).fill("length"));
    // A step has the tokens of those still running, each under its own sequence.
    expect(steps.map((s) => s.step)).toEqual(Array.from({ length: 12 }, (_, i) => i));
    steps.forEach(({ tokens, step }) => {
      expect(tokens.map((t) => t.sequence.id)).toEqual([0, 1, 2, 3].filter((i) => plan[i]![1] > step));
      for (const { sequence, token } of tokens) expect(generated(sequence)[step]).toBe(token);
    });
  });

  test("prompts in pieces of 1, 3, 7 rows give the same tokens, sampled too", async () => {
    const sampling = { temperature: 5, seed: 3 };
    const tokens = async (prefillChunk?: number) => {
      const prompts = [9, 1, 14].map((length, i) => tokensOf(i, length));
      const sequences = prompts.map((prompt, id) => sequence({ id, prompt, maxNewTokens: 2, sampling }));
      const [first] = await run(mode, sequences, { prefillChunk });
      expect(first!.computedTokens).toBe(24);
      return sequences.map(generated);
    };
    const whole = await tokens();
    for (const chunk of [1, 3, 7]) expect(await tokens(chunk)).toEqual(whole);
  });

  test("computes a prompt once, then a token a step; without a cache everything each step", async () => {
    const steps = await run(mode, [sequence({ prompt: tokensOf(0, 9), maxNewTokens: 4 })]);
    expect(steps.map((s) => s.computedTokens)).toEqual(mode === "none" ? [9, 10, 11, 12] : [9, 1, 1, 1]);
  });
});

describe("sampled", () => {
  // The tiny model is sure of itself: at a high temperature its choices differ.
  const SAMPLING = { temperature: 5, topK: 40, topP: 0.95, seed: 1234 };
  const sample = async (mode: CacheMode, seed = SAMPLING.seed) => {
    const sequences = [0, 1, 2].map((id) =>
      sequence({ id, prompt: tokensOf(7, 6), maxNewTokens: 12, sampling: { ...SAMPLING, seed } }),
    );
    await run(mode, sequences);
    return sequences.map(generated);
  };

  test("a seed means the same tokens in all modes and every time", async () => {
    const first = await sample("paged");
    expect(await sample("paged")).toEqual(first);
    expect(await sample("contiguous")).toEqual(first);
    expect(await sample("none")).toEqual(first);
  });

  test("other seeds, and other sequences of one seed, mean other tokens", async () => {
    const [a, b, c] = await sample("paged");
    expect(new Set([a, b, c].map(String)).size).toBe(3);
    expect((await sample("paged", 1235))[0]).not.toEqual(a);
  });
});

describe("the end", () => {
  test("at an end-of-text token; it is the last of the tokens", async () => {
    const expected = await greedy(tokensOf(1, 9), 12);
    const eos = expected[4]!;
    const ended = sequence({ maxNewTokens: 12, eosIds: [eos] });
    await run("paged", [ended]);
    expect(ended.finishReason).toBe("eos");
    expect(generated(ended)).toEqual(expected.slice(0, expected.indexOf(eos) + 1));
    const ignoring = sequence({ maxNewTokens: 12, eosIds: [eos], ignoreEos: true });
    await run("paged", [ignoring]);
    expect([ignoring.finishReason, generated(ignoring)]).toEqual(["length", expected]);
  });

  test("at a stop string, across tokens; the text before it comes step by step", async () => {
    const expected = await greedy(tokensOf(2, 9), 12);
    const stop = `${expected[3]} ${expected[4]}`;
    const stopped = sequence({
      prompt: tokensOf(2, 9),
      maxNewTokens: 12,
      stops: [stop],
      textStream: words(),
    });
    const steps = await run("contiguous", [stopped]);
    const text = expected.map((id) => `${id} `).join("");
    expect(stopped.finishReason).toBe("stop");
    expect(stopped.text).toBe(text.slice(0, text.indexOf(stop)));
    expect(steps.map((s) => s.tokens[0]!.text).join("")).toBe(stopped.text);
  });

  test.each(CACHE_MODES)("at the model's context, cache %s", async (mode) => {
    const full = sequence({ prompt: tokensOf(3, 60), maxNewTokens: 100 });
    const steps = await run(mode, [full]);
    expect([full.finishReason, full.tokens.length, steps.length]).toEqual(["context", 64, 4]);
  });

  test("without sequences there is nothing to do", async () => {
    expect(await run("paged", [sequence({})].slice(1), { sequences: 1 })).toEqual([]);
  });
});

describe("what a step reports", () => {
  test.each(CACHE_MODES)("bytes of keys and values, cache %s", async (mode) => {
    const sequences = [
      sequence({ prompt: tokensOf(0, 10), maxNewTokens: 8 }),
      sequence({ prompt: tokensOf(1, 3), maxNewTokens: 2 }),
    ];
    const steps = await run(mode, sequences, { pageSize: 8, timing: "visible" });
    steps.forEach(({ kv, step }) => {
      // The second sequence is there in its last step, and gone in the next.
      const lengths = step < 2 ? [10 + step, 3 + step] : [10 + step];
      const total = (slots: (length: number) => number) =>
        lengths.reduce((sum, l) => sum + slots(l), 0) * SLOT;
      // The next token's slot is taken with a step's own, but for the last step of a batch, which ends at 1 and at 7.
      const next = step === 1 || step === 7 ? 0 : 1;
      const expected = {
        none: [0, 0],
        contiguous: [total(() => 64), total((l) => l)],
        paged: [total((l) => Math.ceil((l + next) / 8) * 8), total((l) => l)],
      }[mode];
      const [reserved, used] = expected as [number, number];
      expect(kv).toMatchObject({ reserved, used, wasted: reserved - used });
    });
  });

  test.each(CACHE_MODES)("GPU memory now and at most, by purpose, cache %s", async (mode) => {
    const steps = await run(mode, [sequence({})]);
    const sum = (bytes: object) => Object.values(bytes).reduce((a: number, b: number) => a + b, 0);
    for (const { memory, seconds, kv } of steps) {
      expect(sum(memory.byPurpose)).toBe(memory.current);
      expect(memory.peak).toBeGreaterThanOrEqual(memory.current);
      expect(sum(memory.peakByPurpose)).toBeGreaterThanOrEqual(memory.peak);
      expect(memory.byPurpose.weights).toBeGreaterThan(0);
      expect(memory.byPurpose.kv).toBe(kv.allocated);
      expect(memory.peakByPurpose.activations).toBeGreaterThan(0);
      expect(seconds).toBeGreaterThan(0);
    }
  });

  test.each(CACHE_MODES)("afterwards the ledger is where it started, cache %s", async (mode) => {
    await expectLedgerUnchanged(gpu, async () => {
      await run(mode, [sequence({}), sequence({ maxNewTokens: 2 })]);
    });
  });
});

describe("generation that does not come to its end gives its places back", () => {
  const empty = { reserved: 0, used: 0, wasted: 0 };
  const start = (cache: KvCache, sequences: Sequence[]) => generate(model, cache, sequences);
  const live = () =>
    gpu.memory.byLabel().filter((row) => !["(free for reuse)", "params"].includes(row.label));

  test("out of pages in the middle: what was generated stays, nothing else does", async () => {
    const cache = cacheFor(gpu, model, "paged", 2, { pageSize: 8, pages: 3 });
    const before = live();
    const sequences = [0, 1].map((id) => sequence({ id, prompt: tokensOf(id, 6), maxNewTokens: 20 }));
    const steps: GeneratedStep[] = [];
    const work = async () => {
      for await (const step of start(cache, sequences)) steps.push(step);
    };
    // Two sequences of 6 tokens fit a page each until they have 9: then two more are wanted, and one is there. The ninth token
    // itself, which needs no slot until it is computed, is told before that.
    await expect(work()).rejects.toMatchObject({ name: "OutOfPages", requested: 1, free: 0, total: 3 });
    expect(steps).toHaveLength(3);
    expect(sequences.map((s) => [s.generatedLength, s.finishReason])).toEqual([
      [3, null],
      [3, null],
    ]);
    expect(cache.usage()).toMatchObject(empty);
    expect(live()).toEqual(before);
    cache.free();
  });

  test("a prompt that does not fit the pages at all", async () => {
    const cache = cacheFor(gpu, model, "paged", 1, { pageSize: 8, pages: 1 });
    const steps = start(cache, [sequence({})]);
    await expect(steps.next()).rejects.toBeInstanceOf(OutOfPages);
    expect(cache.usage()).toMatchObject(empty);
    cache.free();
  });

  test("more sequences than strips, and a strip that is too short", async () => {
    const cache = cacheFor(gpu, model, "contiguous", 1, { maxSeqLen: 10 });
    await expect(start(cache, [sequence({}), sequence({})]).next()).rejects.toBeInstanceOf(BadInput);
    expect(cache.usage()).toMatchObject(empty);
    const steps = start(cache, [sequence({ prompt: tokensOf(0, 9) })]);
    // A slot for the tenth token, and the eleventh needs none until it is computed.
    for (const step of [0, 1]) expect((await steps.next()).value).toMatchObject({ step });
    await expect(steps.next()).rejects.toThrow("a sequence of 11 tokens does not fit its strip of 10");
    expect(cache.usage()).toMatchObject(empty);
    cache.free();
  });

  test("a strip that is just long enough: the last token needs no slot", async () => {
    const cache = cacheFor(gpu, model, "contiguous", 1, { maxSeqLen: 10 });
    const fits = sequence({ prompt: tokensOf(0, 9), maxNewTokens: 2 });
    for await (const _ of start(cache, [fits]));
    expect([fits.finishReason, fits.tokens.length]).toEqual(["length", 11]);
    cache.free();
  });

  test("a consumer that stops listening", async () => {
    const cache = cacheFor(gpu, model, "paged", 1);
    for await (const { kv } of start(cache, [sequence({})])) {
      expect(kv.used).toBeGreaterThan(0);
      break;
    }
    expect(cache.usage()).toMatchObject(empty);
    cache.free();
  });

  test("a decoder that fails", async () => {
    const cache = cacheFor(gpu, model, "paged", 1);
    const push = () => {
      throw new Error("no such token");
    };
    const steps = start(cache, [sequence({ textStream: { push, end: () => "" } })]);
    await expect(steps.next()).rejects.toThrow("no such token");
    expect(cache.usage()).toMatchObject(empty);
    cache.free();
  });

  test("a prompt with a token that the model does not have", async () => {
    const cache = cacheFor(gpu, model, "contiguous", 1);
    const steps = start(cache, [sequence({ prompt: [1, 131] })]);
    await expect(steps.next()).rejects.toThrow("token id 131 is out of vocabulary (0..130)");
    expect(cache.usage()).toMatchObject(empty);
    cache.free();
  });
});
