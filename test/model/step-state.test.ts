import { afterAll, describe, expect, test } from "vitest";
import type { RememberingCache } from "../../src/kv/cache.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { STEP_ROWS } from "../../src/model/step-arrays.ts";
import { RING_STEPS, type StepSequence, StepState } from "../../src/model/step-state.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";
import { cacheFor, TINY, tokensOf } from "./tiny.ts";

const gpu = await openTestGpu();
const model = await Gpt2.load(gpu, TINY);
afterAll(() => model.free());
const V = model.config.vocabSize;
const GREEDY = { temperature: 0, seed: 0 };

const MODES = ["contiguous", "paged"] as const;
const cacheOf = (mode: (typeof MODES)[number], sequences = 2) =>
  cacheFor(gpu, model, mode, sequences, { pageSize: 8 }) as RememberingCache;

/** Sequences of so many tokens with slots for one more. */
function sequencesIn(cache: RememberingCache, lengths: readonly number[]): StepSequence[] {
  return lengths.map((length, id) => {
    const place = cache.open();
    cache.reserve(place, length + 1);
    return { tokens: tokensOf(id, length), generated: id, id, sampling: GREEDY, place };
  });
}

const rowsOf = async ({ arrays }: StepState) =>
  Object.fromEntries(
    await Promise.all(
      STEP_ROWS.map(async (name) => [name, [...(await arrays.row(name).readIntegers())]] as const),
    ),
  );

/** Logits [S, V] that are 9 at each sequence's token and 0 elsewhere; freed with the state's other tensors by the caller. */
function logitsFor(tokens: readonly number[]): Tensor {
  const values = new Float32Array(tokens.length * V);
  tokens.forEach((token, s) => {
    values[s * V + token] = 9;
  });
  return Tensor.from(gpu, [tokens.length, V], values);
}

describe.each(MODES)("cache %s", (mode) => {
  const slot = (s: number, position: number) =>
    // Strips of the model's context; pages 1, 2, … are handed out in order: two for the first sequence, then the second's.
    mode === "contiguous" ? s * 64 + position : (s === 0 ? 8 : 24) + position;

  test("a loaded batch: the last tokens, which are still to be computed, and where they go", async () => {
    const cache = cacheOf(mode);
    const state = new StepState(gpu, model.config, cache, { sequences: 2, maxContext: 30 });
    state.load(sequencesIn(cache, [9, 4]));
    expect(await rowsOf(state)).toEqual({
      tokenIds: [tokensOf(0, 9).at(-1), tokensOf(1, 4).at(-1)],
      positions: [8, 3],
      slotMapping: [slot(0, 8), slot(1, 3)],
      contextLens: [9, 4],
      generated: [0, 1],
      ring: [0, 0],
    });
    state.free();
    cache.free();
  });

  test("a token is sampled for each sequence, and every array is the next step's", async () => {
    const cache = cacheOf(mode);
    const state = new StepState(gpu, model.config, cache, { sequences: 2, maxContext: 30 });
    state.load(sequencesIn(cache, [9, 4]));
    const logits = logitsFor([77, 5]);
    state.sample(logits);
    expect(await rowsOf(state)).toEqual({
      tokenIds: [77, 5],
      positions: [9, 4],
      slotMapping: [slot(0, 9), slot(1, 4)],
      contextLens: [10, 5],
      generated: [1, 2],
      ring: [1, 1],
    });
    expect([...(await state.tokens.readIntegers()).slice(0, 2)]).toEqual([77, 5]);
    logits.free();
    state.free();
    cache.free();
  });

  test("the ring goes round, row after row", async () => {
    const cache = cacheOf(mode);
    const state = new StepState(gpu, model.config, cache, { sequences: 2, maxContext: 64 });
    expect(state.tokens.shape).toEqual([RING_STEPS, 2]);
    const sequences = sequencesIn(cache, [3, 3]);
    state.load(sequences);
    for (let step = 0; step < RING_STEPS + 2; step++) {
      const logits = logitsFor([step, 127 - step]);
      state.sample(logits);
      logits.free();
    }
    const ring = await state.tokens.readIntegers();
    expect([...ring.slice(0, 6)]).toEqual([64, 63, 65, 62, 2, 125]);
    // Loading begins the ring anew.
    state.load(sequences);
    expect((await rowsOf(state)).ring).toEqual([0, 0]);
    state.free();
    cache.free();
  });

  test("slots that a sequence gets later are known after writeSlots", async () => {
    const cache = cacheOf(mode, 1);
    const state = new StepState(gpu, model.config, cache, { sequences: 1, maxContext: 30 });
    const [sequence] = sequencesIn(cache, [7]);
    state.load([sequence!]);
    cache.reserve(sequence!.place, 9);
    state.writeSlots([sequence!.place]);
    const logits = logitsFor([1]);
    state.sample(logits);
    expect((await rowsOf(state)).slotMapping).toEqual([mode === "contiguous" ? 7 : 15]);
    state.sample(logits);
    // The next page's first slot.
    expect((await rowsOf(state)).slotMapping).toEqual([mode === "contiguous" ? 8 : 16]);
    logits.free();
    state.free();
    cache.free();
  });

  test("a penalty sees the prompt and what was sampled", async () => {
    const cache = cacheOf(mode, 1);
    const state = new StepState(gpu, model.config, cache, { sequences: 1, maxContext: 30 });
    const [sequence] = sequencesIn(cache, [4]);
    const sampling = { temperature: 0, seed: 0, repetitionPenalty: 10 };
    state.load([{ ...sequence!, tokens: [3, 131 - 1, 31, 32], sampling }]);
    const values = new Float32Array(V).fill(-1);
    // Every token of the prompt looks best, then one that is new; once sampled, it is not.
    for (const [token, logit] of [
      [3, 9],
      [130, 9],
      [31, 9],
      [32, 9],
      [64, 8],
      [96, 7],
    ] as const)
      values[token] = logit;
    const logits = Tensor.from(gpu, [1, V], values);
    for (let i = 0; i < 2; i++) state.sample(logits);
    expect([...(await state.tokens.readIntegers()).slice(0, 2)]).toEqual([64, 96]);
    logits.free();
    state.free();
    cache.free();
  });
});

test("a slot table as wide as the longest sequence needs, a word a strip", () => {
  for (const [mode, maxContext, shape] of [
    ["paged", 24, [2, 3]],
    ["paged", 25, [2, 4]],
    ["contiguous", 25, [2, 1]],
  ] as const) {
    const cache = cacheOf(mode);
    const state = new StepState(gpu, model.config, cache, { sequences: 2, maxContext });
    expect(state.slots.table.shape).toEqual(shape);
    expect([state.slots.part, state.slots.pageSize]).toEqual([`slots-${mode}`, mode === "paged" ? 8 : 1]);
    state.free();
    cache.free();
  }
});

test("pages past the longest context are not written into the next sequence's row", async () => {
  const cache = cacheOf("paged");
  const state = new StepState(gpu, model.config, cache, { sequences: 2, maxContext: 16 });
  const sequences = sequencesIn(cache, [9, 4]);
  cache.reserve(sequences[0]!.place, 30);
  state.load(sequences);
  expect([...(await state.slots.table.readIntegers())]).toEqual([1, 2, 3, 0]);
  state.free();
  cache.free();
});

test("without a cache there are no slots, and all else is the same", async () => {
  const cache = cacheFor(gpu, model, "none", 1);
  const state = new StepState(gpu, model.config, cache, { sequences: 1, maxContext: 30 });
  state.load([{ tokens: [5, 6, 7], generated: 1, id: 0, sampling: GREEDY, place: cache.open() }]);
  const logits = logitsFor([9]);
  state.sample(logits);
  expect(await rowsOf(state)).toMatchObject({
    tokenIds: [9],
    positions: [3],
    contextLens: [4],
    generated: [2],
  });
  logits.free();
  state.free();
});

test("as many sequences as the batch has", () => {
  const cache = cacheOf("paged");
  const state = new StepState(gpu, model.config, cache, { sequences: 2, maxContext: 30 });
  expect(() => state.load(sequencesIn(cache, [3]))).toThrow("step state: 1 sequences for a batch of 2");
  state.free();
  cache.free();
});

test("a greedy batch gives the tokens of any other at temperature 0, and takes no other", async () => {
  const cache = cacheOf("paged");
  const state = new StepState(gpu, model.config, cache, { sequences: 2, maxContext: 30, greedy: true });
  const sequences = sequencesIn(cache, [9, 4]);
  const sampling = { temperature: 0.5, seed: 0 };
  expect(() => state.load([sequences[0]!, { ...sequences[1]!, sampling }])).toThrow(
    "step state: the batch is said to be greedy, but a sequence has a temperature above 0",
  );
  state.load(sequences);
  const logits = logitsFor([77, 5]);
  state.sample(logits);
  expect(await rowsOf(state)).toMatchObject({ tokenIds: [77, 5], positions: [9, 4], ring: [1, 1] });
  logits.free();
  state.free();
  cache.free();
});

test("the ledger is back where it started, also when an allocation in the middle fails", async () => {
  const cache = cacheOf("paged");
  await expectLedgerUnchanged(gpu, () =>
    new StepState(gpu, model.config, cache, { sequences: 2, maxContext: 30 }).free(),
  );
  const empty = Tensor.empty;
  await expectLedgerUnchanged(gpu, () => {
    for (let failing = 1; failing <= 5; failing++) {
      let made = 0;
      Tensor.empty = (...args) => {
        if (++made === failing) throw new Error("no room");
        return empty.apply(Tensor, args);
      };
      try {
        expect(() => new StepState(gpu, model.config, cache, { sequences: 2, maxContext: 30 })).toThrow(
          "no room",
        );
      } finally {
        Tensor.empty = empty;
      }
    }
  });
  cache.free();
});
