import process from "node:process";
import { afterAll, describe, expect, test } from "vitest";
import { type GeneratedStep, generate, type Timing } from "../../src/generate/generate.ts";
import { Sequence, type SequenceOptions } from "../../src/generate/sequence.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { CACHE_MODES, type CacheMode, type KvCache, slotBytes } from "../../src/kv/cache.ts";
import { OutOfPages } from "../../src/kv/page-allocator.ts";
import type { PagedCache } from "../../src/kv/paged-cache.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { Tensor } from "../../src/tensor.ts";
import { loadNovels } from "../golden-check.ts";
import { expectLedgerUnchanged } from "../gpu-fixture.ts";
import { cacheFor, TINY, tokensOf } from "../model/tiny.ts";

// A GPU goes from token to token by itself, in rounds of 8 steps, 3 rounds ahead of the host. The software adapter's own rounds
// are of one step, so a GPU's are used here, whatever the adapter is.

const { QUIRE_TEST_ADAPTER: adapter = "auto" } = process.env;
const gpu = await Gpu.open({ adapter, forms: "gpu", profile: "fast" });
afterAll(() => gpu.close());
const model = await Gpt2.load(gpu, TINY);

const TIMINGS = ["visible", "pipelined"] as const;
const ROUND = 8;
const AHEAD = 3 * ROUND;
/** The tiny model is sure of itself: at a high temperature its choices differ. */
const SAMPLED = { temperature: 5, topK: 40, topP: 0.95, repetitionPenalty: 1.2, seed: 1234 };
const GREEDY = { temperature: 0, seed: 0 };
const SLOT = slotBytes(model.cacheShape("f32"));

const sequence = (options: Partial<SequenceOptions> = {}): Sequence =>
  new Sequence({
    prompt: tokensOf(1, 9),
    maxNewTokens: 24,
    contextLength: 64,
    sampling: SAMPLED,
    ...options,
  });
const generated = (s: Sequence): number[] => s.tokens.slice(s.promptLength);

/** All steps of a run with a cache that is empty afterwards. */
async function stepsOf(
  cache: KvCache,
  sequences: readonly Sequence[],
  timing: Timing,
): Promise<GeneratedStep[]> {
  const steps: GeneratedStep[] = [];
  for await (const step of generate(model, cache, sequences, { timing })) steps.push(step);
  expect(cache.usage()).toMatchObject({ reserved: 0, used: 0, wasted: 0 });
  return steps;
}

async function run(
  mode: CacheMode,
  sequences: readonly Sequence[],
  timing: Timing,
): Promise<GeneratedStep[]> {
  const cache = cacheFor(gpu, model, mode, sequences.length, { pageSize: 8 });
  try {
    return await stepsOf(cache, sequences, timing);
  } finally {
    cache.free();
  }
}

/** Each id as a word. */
const words = () => ({ push: (id: number) => `${id} `, end: () => "" });

const WAYS = (["contiguous", "paged"] as const).flatMap((mode) =>
  TIMINGS.map((timing) => ({ mode, timing })),
);

// Of the greedy ways those that the golden tokens below do not take.
describe.each([
  { name: "greedy", sampling: GREEDY, ways: [WAYS[1]!, WAYS[2]!] },
  {
    name: "temperature 0.8, top-k, top-p and penalty",
    sampling: { ...SAMPLED, temperature: 0.8 },
    ways: WAYS,
  },
])("$name", ({ sampling, ways }) => {
  test("the same tokens in all modes and timings, for sequences that end at different steps", async () => {
    // Ends in the prompt's step, in the first round, the second and the third.
    const plan = [
      [5, 18],
      [17, 12],
      [2, 1],
      [9, 6],
    ] as const;
    const all = async (mode: CacheMode, timing: Timing) => {
      const sequences = plan.map(([length, count], id) =>
        sequence({ id, prompt: tokensOf(id, length), maxNewTokens: count, sampling }),
      );
      const steps = await run(mode, sequences, timing);
      expect(steps.map((s) => s.step)).toEqual(Array.from({ length: 18 }, (_, i) => i));
      steps.forEach(({ tokens, step }) => {
        expect(tokens.map((t) => t.sequence.id)).toEqual([0, 1, 2, 3].filter((i) => plan[i]![1] > step));
      });
      // Every end was known beforehand, so nothing was computed in vain.
      expect(steps.at(-1)!.surplus).toBe(0);
      expect(sequences.map((s) => s.generatedLength)).toEqual(plan.map(([, count]) => count));
      return sequences.map(generated);
    };
    const expected = await all("none", "visible");
    for (const { mode, timing } of ways)
      expect(await all(mode, timing), `${mode}, ${timing}`).toEqual(expected);
    // A sequence in a batch gets what it gets alone.
    const alone = sequence({ id: 3, prompt: tokensOf(3, 9), maxNewTokens: 6, sampling });
    await run("paged", [alone], "pipelined");
    expect(generated(alone)).toEqual(expected[3]);
  });
});

test("up to the model's context", async () => {
  const of = async (mode: CacheMode, timing: Timing) => {
    // The GPU's 24 steps ahead would pass the end at once.
    const full = sequence({ prompt: tokensOf(4, 43), maxNewTokens: 1000 });
    await run(mode, [full], timing);
    expect([full.finishReason, full.tokens.length]).toEqual(["context", 64]);
    return generated(full);
  };
  expect(await of("paged", "pipelined")).toEqual(await of("contiguous", "visible"));
});

test("a second run on the same model and cache gives the same tokens", async () => {
  const cache = cacheFor(gpu, model, "paged", 2, { pageSize: 8 });
  const once = async () => {
    const sequences = [0, 1].map((id) => sequence({ id, prompt: tokensOf(id, 6 + id), maxNewTokens: 14 }));
    await stepsOf(cache, sequences, "pipelined");
    return sequences.map(generated);
  };
  const first = await once();
  expect(await once()).toEqual(first);
  cache.free();
});

test("two runs at once on one cache do not disturb each other", async () => {
  const cache = cacheFor(gpu, model, "paged", 2, { pageSize: 8 });
  const one = (id: number) => sequence({ id, prompt: tokensOf(id, 6 + id), maxNewTokens: 14 });
  const alone = [one(0), one(1)];
  for (const s of alone) await stepsOf(cache, [s], "pipelined");
  const both = [one(0), one(1)];
  const listen = async (s: Sequence) => {
    for await (const _ of generate(model, cache, [s]));
  };
  await Promise.all(both.map(listen));
  expect(both.map(generated)).toEqual(alone.map(generated));
  cache.free();
});

test("novels-en: the golden tokens, and more than the ring of 64 steps holds, visible and pipelined", async () => {
  // On the adapter's own sizes, as users have it; mode none is compared with the golden tokens in test/model/golden-novels.
  const here = await Gpu.open({ adapter, profile: "fast" });
  const { model: novels, json } = await loadNovels(here, "en");
  const { ids, greedy } = json.prompts[0]!;
  const runs: number[][] = [];
  for (const [mode, timing] of [
    ["contiguous", "visible"],
    ["paged", "pipelined"],
  ] as const) {
    const cache = cacheFor(here, novels, mode, 1, { pageSize: 8, expectedLength: 128 });
    const one = sequence({ prompt: ids, maxNewTokens: 70, contextLength: 1024, sampling: GREEDY });
    const before = here.dispatchCount;
    for await (const _ of generate(novels, cache, [one], { timing }));
    // The prompt's launches, 87 and at most 150 on any adapter, then 69 fused steps: none more than once, none in vain.
    const step = (here.forms === "software" ? 4 : 3) + 5 * novels.config.layers;
    expect(here.dispatchCount - before).toBeLessThan(150 + 69 * step);
    runs.push(generated(one));
    cache.free();
  }
  expect(greedy).toHaveLength(64);
  expect(runs[0]!.slice(0, 64)).toEqual(greedy);
  for (const run of runs) expect(run).toEqual(runs[0]);
  await here.close();
});

describe("an end that only the host can see", () => {
  /** Places from the second token on where a token occurs for the first time: an end-of-text token may be put there. */
  const endsOf = (tokens: readonly number[]) =>
    tokens.map((_, i) => i).filter((i) => i > 0 && tokens.indexOf(tokens[i]!) === i);

  test("the surplus is what was computed ahead: none when each token is waited for, at most 24", async () => {
    const whole = sequence({ maxNewTokens: 40 });
    await run("paged", [whole], "pipelined");
    const tokens = generated(whole);
    let before = gpu.dispatchCount;
    await run("paged", [sequence({ maxNewTokens: 1 })], "pipelined");
    const prompt = gpu.dispatchCount - before;
    const launches = 3 + 5 * model.config.layers;
    const surpluses: number[] = [];
    const ends = endsOf(tokens).filter((end, i) => i % 4 === 0 && end < 16);
    expect(ends.length).toBeGreaterThan(2);
    for (const end of ends) {
      for (const timing of TIMINGS) {
        const ended = sequence({ maxNewTokens: 40, eosIds: [tokens[end]!] });
        before = gpu.dispatchCount;
        const steps = await run("paged", [ended], timing);
        expect([ended.finishReason, generated(ended)]).toEqual(["eos", tokens.slice(0, end + 1)]);
        const { surplus } = steps.at(-1)!;
        // The last step, encoded but not submitted, is counted as launched where each is waited for.
        const computed = (gpu.dispatchCount - before - prompt) / launches;
        expect(surplus).toBe(timing === "visible" ? 0 : computed - end);
        if (timing === "pipelined") surpluses.push(surplus);
        expect(steps.slice(0, -1).every((s) => s.surplus === 0)).toBe(true);
      }
    }
    expect(Math.max(...surpluses)).toBeLessThanOrEqual(AHEAD);
    expect(Math.max(...surpluses)).toBeGreaterThan(ROUND);
  });

  test.each(["contiguous", "paged"] as const)(
    "the others of the batch go on with the tokens they have alone, cache %s",
    async (mode) => {
      const three = (eos: readonly number[][]) =>
        [0, 1, 2].map((id) => sequence({ id, prompt: tokensOf(id, 5 + id), eosIds: eos[id]! }));
      const whole = three([[], [], []]);
      await run(mode, whole, "pipelined");
      const expected = whole.map(generated);
      // One ends in the middle of a round, another in what was computed ahead for the two that are left.
      const at = (id: number, from: number) => endsOf(expected[id]!).find((i) => i >= from)!;
      const [first, second] = [at(1, 4), at(2, 7)];
      const ended = three([[], [expected[1]![first]!], [expected[2]![second]!]]);
      const steps = await run(mode, ended, "pipelined");
      expect(ended.map((s) => s.finishReason)).toEqual(["length", "eos", "eos"]);
      expect(ended.map(generated)).toEqual([
        expected[0],
        expected[1]!.slice(0, first + 1),
        expected[2]!.slice(0, second + 1),
      ]);
      expect(steps).toHaveLength(24);
      const { surplus } = steps.at(-1)!;
      expect(surplus).toBeGreaterThan(0);
      expect(surplus).toBeLessThanOrEqual(2 * AHEAD);
    },
  );

  test.each(TIMINGS)("a stop string across tokens, in the middle of a round, %s", async (timing) => {
    const whole = sequence({ textStream: words() });
    await run("paged", [whole], timing);
    const tokens = generated(whole);
    const stop = `${tokens[11]} ${tokens[12]}`;
    const stopped = sequence({ textStream: words(), stops: [stop] });
    const steps = await run("paged", [stopped], timing);
    const text = tokens.map((id) => `${id} `).join("");
    expect(stopped.finishReason).toBe("stop");
    expect(stopped.text).toBe(text.slice(0, text.indexOf(stop)));
    expect(steps.map((s) => s.tokens[0]!.text).join("")).toBe(stopped.text);
    expect(steps.at(-1)!.surplus > 0).toBe(timing === "pipelined");
  });
});

describe("what a step reports", () => {
  test("keys and values in use are those of accepted tokens, however far the GPU is ahead", async () => {
    for (const timing of TIMINGS) {
      const [one] = [sequence({ prompt: tokensOf(0, 10) })];
      const steps = await run("paged", [one!], timing);
      for (const { kv, step } of steps) {
        expect(kv.used).toBe((10 + step) * SLOT);
        const ahead = timing === "visible" ? 1 : AHEAD + ROUND;
        expect(kv.reserved).toBeGreaterThanOrEqual(Math.ceil((10 + step) / 8) * 8 * SLOT);
        expect(kv.reserved).toBeLessThanOrEqual(Math.ceil((10 + step + ahead) / 8) * 8 * SLOT);
        expect(kv.wasted).toBe(kv.reserved - kv.used);
      }
    }
  });

  test("a prompt's tokens once, then one a step and sequence, in replayed steps of 3 + 5 · L launches", async () => {
    for (const timing of TIMINGS) {
      const before = gpu.dispatchCount;
      await run("paged", [sequence({ maxNewTokens: 1 })], timing);
      const prompt = gpu.dispatchCount - before;
      const [start, steps] = [
        gpu.dispatchCount,
        await run("paged", [sequence({ maxNewTokens: 12 })], timing),
      ];
      expect(steps.map((s) => s.computedTokens)).toEqual([9, ...Array(11).fill(1)]);
      expect(gpu.dispatchCount - start).toBe(prompt + 11 * (3 + 5 * model.config.layers));
      for (const { seconds } of steps) expect(seconds).toBeGreaterThan(0);
    }
  });

  test.each(CACHE_MODES)("afterwards the ledger is where it started, cache %s", async (mode) => {
    const eos = [...Array(60).keys()];
    for (const timing of TIMINGS)
      await expectLedgerUnchanged(gpu, async () => {
        await run(
          mode,
          [sequence({ eosIds: eos, maxNewTokens: 12 }), sequence({ id: 1, maxNewTokens: 5 })],
          timing,
        );
      });
  });
});

describe("what goes wrong on the way", () => {
  test.each(TIMINGS)("out of pages: what was given is right, and all pages are back, %s", async (timing) => {
    const whole = [0, 1].map((id) => sequence({ id, prompt: tokensOf(id, 6) }));
    await run("paged", whole, timing);
    const cache = cacheFor(gpu, model, "paged", 2, { pageSize: 8, pages: 7 }) as PagedCache;
    const sequences = [0, 1].map((id) => sequence({ id, prompt: tokensOf(id, 6) }));
    await expect(stepsOf(cache, sequences, timing)).rejects.toBeInstanceOf(OutOfPages);
    const lengths = sequences.map((s) => s.generatedLength);
    // Three pages hold 24 tokens of a sequence, and the last token needs no slot: all 19 that fit are told first.
    expect(lengths).toEqual([19, 19]);
    sequences.forEach((s, i) => {
      expect(generated(s)).toEqual(generated(whole[i]!).slice(0, lengths[i]));
      expect(s.finishReason).toBeNull();
    });
    expect(cache.allocator.freeCount).toBe(7);
    expect(cache.usage()).toMatchObject({ reserved: 0, used: 0 });
    cache.free();
  });

  test.each(CACHE_MODES)("weights that are not numbers: the sampler says so, cache %s", async (mode) => {
    const broken = await Gpt2.load(gpu, TINY);
    const { lnF } = broken.weights;
    gpu.write(lnF, new Float32Array(lnF.rows * lnF.stride).fill(Number.NaN));
    for (const timing of TIMINGS) {
      const cache = cacheFor(gpu, broken, mode, 1, { pageSize: 8 });
      const steps = generate(broken, cache, [sequence()], { timing });
      await expect(steps.next()).rejects.toThrow(
        "sampler: a logit is NaN or Infinity, or none is finite; there is no token to choose",
      );
      expect(cache.usage()).toMatchObject({ reserved: 0, used: 0 });
      cache.free();
    }
    broken.free();
  });

  test("weights that become NaN while rounds are in flight: tokens up to there, then the sampler's message", async () => {
    const broken = await Gpt2.load(gpu, TINY);
    const cache = cacheFor(gpu, broken, "paged", 1, { pageSize: 8 });
    const one = sequence();
    const steps = generate(broken, cache, [one]);
    await steps.next();
    const { lnF } = broken.weights;
    gpu.write(lnF, new Float32Array(lnF.rows * lnF.stride).fill(Number.NaN));
    const rest = async () => {
      while (!(await steps.next()).done);
    };
    await expect(rest()).rejects.toThrow("there is no token to choose");
    // Whole rounds were right.
    expect((one.generatedLength - 1) % ROUND).toBe(0);
    expect(cache.usage()).toMatchObject({ reserved: 0, used: 0 });
    cache.free();
    broken.free();
  });

  test("memory that runs out while a batch is made leaves nothing behind", async () => {
    const empty = Tensor.empty;
    await expectLedgerUnchanged(gpu, async () => {
      for (const failing of [1, 3, 8, 20]) {
        let made = 0;
        const cache = cacheFor(gpu, model, "paged", 1, { pageSize: 8 });
        Tensor.empty = (...args) => {
          if (++made === failing) throw new Error("no room");
          return empty.apply(Tensor, args);
        };
        try {
          await expect(stepsOf(cache, [sequence({ maxNewTokens: 3 })], "pipelined")).rejects.toThrow(
            "no room",
          );
        } finally {
          Tensor.empty = empty;
        }
        expect(cache.usage()).toMatchObject({ reserved: 0, used: 0 });
        cache.free();
      }
    });
  });
});
