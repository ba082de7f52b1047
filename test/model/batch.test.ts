import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { OutOfMemory } from "../../src/gpu/errors.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { CACHE_MODES, type CacheMode, type KvCache, type Place } from "../../src/kv/cache.ts";
import { OutOfPages } from "../../src/kv/page-allocator.ts";
import { type BatchItem, makeBatch, type Rows } from "../../src/model/batch.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { add } from "../../src/ops/add.ts";
import { scope, Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";
import { cacheFor, goldenTensor, TINY, tokensOf } from "./tiny.ts";

const gpu = await openTestGpu();
const model = await Gpt2.load(gpu, TINY);
const V = model.config.vocabSize;
afterAll(() => model.free());

/** Logits of the model on a GPU are within this of each other, whichever form of a product ran (numerics.md: 2e-4). */
const TOLERANCE = 2e-4;

/** One step: rows of logits, one for each item. A cache that forgets is given all tokens again. */
async function step(
  cache: KvCache,
  items: readonly { place: Place; known: readonly number[]; fresh: readonly number[] }[],
): Promise<Float32Array[]> {
  const batch = items.map(({ place, known, fresh }) => ({
    place,
    tokens: cache.remembers ? fresh : [...known, ...fresh],
  }));
  const logits = model.forward(cache, batch);
  const values = await logits.read();
  logits.free();
  return items.map((_, i) => values.slice(i * V, (i + 1) * V));
}

const known = new Map<string, Float32Array>();

/** Logits after all of `tokens`, computed alone and from the start. */
async function alone(mode: CacheMode, tokens: readonly number[]): Promise<Float32Array> {
  const key = `${mode} ${tokens}`;
  const computed = known.get(key);
  if (computed) return computed;
  const cache = cacheFor(gpu, model, mode, 1);
  const [logits] = await step(cache, [{ place: cache.open(), known: [], fresh: tokens }]);
  cache.free();
  known.set(key, logits!);
  return logits!;
}

function expectClose(actual: Float32Array, expected: Float32Array): void {
  expect(actual).toHaveLength(expected.length);
  let worst = 0;
  actual.forEach((value, i) => {
    worst = Math.max(worst, Math.abs(value - expected[i]!));
  });
  expect(worst).toBeLessThan(TOLERANCE);
  expect(actual.every(Number.isFinite)).toBe(true);
}

/** How many new tokens each of five sequences has in each step: prefill, decode, pieces of prompts, idle ones. */
const SCHEDULE = [
  [17, 1, 0, 5, 0],
  [1, 1, 9, 5, 0],
  [1, 1, 1, 6, 2],
  [1, 0, 1, 1, 30],
  [4, 1, 1, 1, 1],
] as const;

describe.each(CACHE_MODES)("a ragged batch, cache %s", (mode) => {
  test("gives each sequence what it gets alone, prefill and decode mixed", async () => {
    const cache = cacheFor(gpu, model, mode, 5);
    const sequences = [0, 1, 2, 3, 4].map((seed) => ({
      place: cache.open(),
      all: tokensOf(seed, 50),
      done: 0,
    }));
    for (const counts of SCHEDULE) {
      const running = sequences.filter((_, s) => counts[s]! > 0);
      const items = sequences.flatMap(({ place, all, done }, s) =>
        counts[s]! > 0
          ? [{ place, known: all.slice(0, done), fresh: all.slice(done, done + counts[s]!) }]
          : [],
      );
      const logits = await step(cache, items);
      sequences.forEach((sequence, s) => {
        sequence.done += counts[s]!;
      });
      for (const [i, { all, done }] of running.entries())
        expectClose(logits[i]!, await alone("none", all.slice(0, done)));
    }
    cache.free();
  });

  test("a prompt in pieces gives what the whole prompt gives", async () => {
    const prompt = tokensOf(9, 40);
    const whole = await alone(mode, prompt);
    const cache = cacheFor(gpu, model, mode, 1);
    const place = cache.open();
    let last: Float32Array | undefined;
    for (const [begin, end] of [
      [0, 7],
      [7, 8],
      [8, 24],
      [24, 40],
    ] as const)
      [last] = await step(cache, [{ place, known: prompt.slice(0, begin), fresh: prompt.slice(begin, end) }]);
    expectClose(last!, whole);
    cache.free();
  });

  test("the golden logits, for every length of the golden prompt at once", async () => {
    const ids = [...(await goldenTensor("tiny/golden.safetensors", "input_ids"))];
    const expected = await goldenTensor("tiny/golden.safetensors", "logits");
    const cache = cacheFor(gpu, model, mode, ids.length);
    const items = ids.map((_, i) => ({ place: cache.open(), known: [], fresh: ids.slice(0, i + 1) }));
    const logits = await step(cache, items);
    logits.forEach((row, i) => {
      expectClose(row, expected.slice(i * V, (i + 1) * V));
    });
    cache.free();
  });

  test("what was in the cache before does not matter", async () => {
    const options = { pageSize: 8, pages: 6 };
    const cache = cacheFor(gpu, model, mode, 2, options);
    const prompt = tokensOf(3, 20);
    const fresh = cacheFor(gpu, model, mode, 2, options);
    const [expected] = await step(fresh, [{ place: fresh.open(), known: [], fresh: prompt }]);
    fresh.free();
    // Two earlier sequences leave their keys and values behind, and pages in another order.
    const [a, b] = [cache.open(), cache.open()];
    const earlier = [a, b].map((place, i) => ({ place, known: [], fresh: tokensOf(i + 20, 20) }));
    await step(cache, earlier);
    cache.close(a);
    cache.close(b);
    const [again] = await step(cache, [{ place: cache.open(), known: [], fresh: prompt }]);
    expect(again).toEqual(expected);
    cache.free();
  });

  test("a step gives its memory back", async () => {
    const cache = cacheFor(gpu, model, mode, 1);
    await expectLedgerUnchanged(gpu, async () => {
      const place = cache.open();
      await step(cache, [{ place, known: [], fresh: tokensOf(1, 12) }]);
      cache.close(place);
    });
    cache.free();
  });
});

test("all caches give the same bits for the same batches", async () => {
  const [contiguous, paged] = await Promise.all(
    (["contiguous", "paged"] as const).map(async (mode) => {
      const cache = cacheFor(gpu, model, mode, 2, { pageSize: 8 });
      const places = [cache.open(), cache.open()];
      const rows: Float32Array[] = [];
      for (const [begin, end] of [
        [0, 11],
        [11, 12],
        [12, 30],
        [30, 31],
      ] as const) {
        const items = places.map((place, s) => ({
          place,
          known: [],
          fresh: tokensOf(s, 40).slice(begin, end),
        }));
        rows.push(...(await step(cache, items)));
      }
      cache.free();
      return rows;
    }),
  );
  expect(paged).toEqual(contiguous);
  const whole = tokensOf(0, 11);
  expect(await alone("none", whole)).toEqual(await alone("contiguous", whole));
  expect(await alone("paged", whole)).toEqual(await alone("contiguous", whole));
});

describe.each(CACHE_MODES)("what a batch refuses, cache %s", (mode) => {
  test("tokens outside the vocabulary, sequences past the context and empty ones; nothing has changed then", () => {
    const cache = cacheFor(gpu, model, mode, 2);
    const [a, b] = [cache.open(), cache.open()];
    const before = [cache.usage(), gpu.memory.currentByPurpose];
    const forward = (...tokens: number[][]) =>
      model.forward(
        cache,
        tokens.map((t, i) => ({ place: [a, b][i]!, tokens: t })),
      );
    for (const id of [131, -1, 1.5, Number.NaN])
      expect(() => forward([1, 2], [3, id])).toThrow(`token id ${id} is out of vocabulary (0..130)`);
    expect(() => forward([1], tokensOf(0, 65))).toThrow(
      "a sequence of 65 tokens does not fit the model's context of 64",
    );
    expect(() => forward([1], [])).toThrow("batch: each sequence needs at least one new token");
    expect(() => forward()).toThrow("batch: each sequence needs at least one new token");
    expect([cache.usage(), gpu.memory.currentByPurpose]).toEqual(before);
    expect([a.length, b.length]).toEqual([0, 0]);
    cache.free();
  });
});

test("a position past the context is refused in a later step too", async () => {
  const cache = cacheFor(gpu, model, "paged", 1);
  const place = cache.open();
  await step(cache, [{ place, known: [], fresh: tokensOf(0, 64) }]);
  expect(() => model.forward(cache, [{ place, tokens: [1] }])).toThrow(
    "a sequence of 65 tokens does not fit the model's context of 64",
  );
  expect(place.length).toBe(64);
  cache.free();
});

test("a batch that does not fit the pages changes nothing, and a smaller one still runs", async () => {
  const cache = cacheFor(gpu, model, "paged", 2, { pageSize: 8, pages: 3 });
  const [a, b] = [cache.open(), cache.open()];
  const before = cache.usage();
  const items = [a, b].map((place, s) => ({ place, tokens: tokensOf(s, 16) }));
  expect(() => model.forward(cache, items)).toThrow(OutOfPages);
  expect(cache.usage()).toEqual(before);
  const [row] = await step(cache, [{ place: a, known: [], fresh: tokensOf(0, 16) }]);
  expectClose(row!, await alone("none", tokensOf(0, 16)));
  cache.free();
});

test("activations above the budget: OutOfMemory, and what the step took comes back", async () => {
  const { weights } = gpu.memory.currentByPurpose;
  // 5 pages of 16 slots; keys and values of 2 layers, 48 channels of 4 bytes.
  const kvBytes = 5 * 16 * 2 * 2 * 48 * 4;
  const adapter = gpu.info.software ? "software" : "auto";
  const small = await Gpu.open({ adapter, memoryBudget: weights + kvBytes + 20_000 });
  const tiny = await Gpt2.load(small, TINY);
  const cache = cacheFor(small, tiny, "paged", 1);
  const live = () =>
    small.memory.byLabel().filter((row) => !["(free for reuse)", "params"].includes(row.label));
  const before = live();
  const place = cache.open();
  expect(() => tiny.forward(cache, [{ place, tokens: tokensOf(0, 60) }])).toThrow(OutOfMemory);
  expect(live()).toEqual(before);
  cache.close(place);
  // What was recorded of the failed step does not disturb the next one.
  const logits = tiny.forward(cache, [{ place: cache.open(), tokens: tokensOf(0, 3) }]);
  expectClose(await logits.read(), await alone("none", tokensOf(0, 3)));
  await small.close();
  expect(small.memory.current).toBe(0);
});

test("work recorded before a step that is refused still runs", async () => {
  const cache = cacheFor(gpu, model, "paged", 1);
  const ones = Tensor.from(gpu, [4], [1, 1, 1, 1]);
  const sum = add(ones, ones);
  expect(() => model.forward(cache, [{ place: cache.open(), tokens: [131] }])).toThrow("out of vocabulary");
  expect([...(await sum.read())]).toEqual([2, 2, 2, 2]);
  for (const tensor of [ones, sum]) tensor.free();
  cache.free();
});

describe("the rows of a step", () => {
  const ARRAYS = [
    "tokenIds",
    "positions",
    "slotMapping",
    "sequenceOf",
    "queryStarts",
    "contextLens",
  ] as const;

  /** The arrays of rows, and their tiles. */
  const arraysOf = async (rows: Rows) => {
    const read = async (tensor: Tensor | undefined) => [...((await tensor?.readIntegers()) ?? [])];
    const [tiles, ...arrays] = await Promise.all([
      read(rows.tiles),
      ...ARRAYS.map((name) => read(rows[name])),
    ]);
    const { tileRows, work } = rows;
    const named = Object.fromEntries(ARRAYS.map((name, i) => [name, arrays[i]!]));
    return { ...(named as Record<(typeof ARRAYS)[number], number[]>), tiles, tileRows, work };
  };

  /** Sequences with so many tokens in the cache, and new ones; the first of those are of the prompt. */
  const laidOut = async (
    items: readonly { known?: number; count: number; prompt?: number }[],
    options: Parameters<typeof makeBatch>[4] = {},
  ) => {
    const cache = cacheFor(gpu, model, "paged", items.length, { pageSize: 8 });
    try {
      const places = items.map(() => cache.open());
      const given = (from: number, count: number, s: number) => tokensOf(s, 64).slice(from, from + count);
      const known = items.flatMap(({ known: n = 0 }, s) =>
        n > 0 ? [{ place: places[s]!, tokens: given(0, n, s) }] : [],
      );
      const fresh = items.map(({ known: n = 0, count, prompt }, s): BatchItem => {
        const item = { place: places[s]!, tokens: given(n, count, s) };
        return prompt === undefined ? item : { ...item, prompt };
      });
      const layOut = (batch: readonly BatchItem[]) => {
        const { prompt, rest, lastRows } = makeBatch(gpu, model.config, cache, batch, options);
        return {
          prompt: prompt && arraysOf(prompt),
          rest: rest && arraysOf(rest),
          lastRows: lastRows.readIntegers(),
        };
      };
      // Reads are submitted at once, so the scope may take the arrays back.
      if (known.length > 0) scope(gpu, () => void layOut(known));
      let result: ReturnType<typeof layOut> | undefined;
      scope(gpu, () => {
        result = layOut(fresh);
        return undefined;
      });
      const [prompt, rest, lastRows] = await Promise.all([result!.prompt, result!.rest, result!.lastRows]);
      return { prompt, rest, lastRows: [...lastRows] };
    } finally {
      cache.free();
    }
  };

  test("are those of prompts, in tiles, if nobody says otherwise", async () => {
    const { prompt, rest, lastRows } = await laidOut(
      [
        { count: 5, prompt: 4 },
        { known: 3, count: 2, prompt: 1 },
      ],
      {
        tileRows: 4,
      },
    );
    expect(rest).toBeUndefined();
    expect(lastRows).toEqual([4, 6]);
    expect(prompt).toMatchObject({
      positions: [0, 1, 2, 3, 4, 3, 4],
      sequenceOf: [0, 0, 0, 0, 0, 1, 1],
      queryStarts: [0, 5, 7],
      contextLens: [5, 5],
      tiles: [0, 4, 0, 0, 1, 5],
      tileRows: 4,
      work: { keys: 10, pairs: 15 + 9 },
    });
  });

  test("are apart behind prompts, and only those of prompts have tiles", async () => {
    const items = [
      { count: 5, prompt: 3 },
      { known: 3, count: 2, prompt: 1 },
    ];
    const { prompt, rest, lastRows } = await laidOut(items, { tileRows: 4, apart: true });
    expect(prompt).toMatchObject({
      positions: [0, 1, 2, 3],
      queryStarts: [0, 3, 4],
      contextLens: [3, 4],
      tiles: [0, 0, 1, 3],
      work: { keys: 7, pairs: 6 + 4 },
    });
    expect(rest).toMatchObject({
      positions: [3, 4, 4],
      sequenceOf: [0, 0, 1],
      queryStarts: [0, 2, 3],
      contextLens: [5, 5],
      tiles: [],
      tileRows: undefined,
      work: { keys: 10, pairs: 4 + 5 + 5 },
    });
    expect(lastRows).toEqual([1, 2]);
  });

  test("are all behind prompts in a step of generated tokens", async () => {
    const items = [4, 9].map((known) => ({ known, count: 1, prompt: 0 }));
    const { prompt, rest, lastRows } = await laidOut(items, { tileRows: 4, apart: true });
    expect(prompt).toBeUndefined();
    expect(rest).toMatchObject({ positions: [4, 9], queryStarts: [0, 1, 2], contextLens: [5, 10] });
    expect(lastRows).toEqual([0, 1]);
  });

  test("are the same rows, apart or not, each in one place", async () => {
    const item = fc
      .record({ known: fc.nat(9), prompt: fc.nat(6), behind: fc.integer({ min: 1, max: 4 }) })
      .map(({ known, prompt, behind }) => ({ known, prompt, count: prompt + behind }));
    await fc.assert(
      fc.asyncProperty(fc.array(item, { minLength: 1, maxLength: 4 }), async (items) => {
        const { prompt: whole } = await laidOut(items);
        const { prompt, rest, lastRows } = await laidOut(items, { apart: true });
        const rowsOf = (arrays: typeof whole) =>
          (arrays?.tokenIds ?? []).map((id, i) =>
            [arrays!.sequenceOf[i], arrays!.positions[i], id, arrays!.slotMapping[i]].join(),
          );
        expect([...rowsOf(prompt), ...rowsOf(rest)].sort()).toEqual(rowsOf(whole).sort());
        expect(rowsOf(prompt)).toHaveLength(items.reduce((n, i) => n + i.prompt, 0));
        expect(lastRows.map((row) => rest!.sequenceOf[row])).toEqual(items.map((_, s) => s));
        expect(lastRows.map((row) => rest!.positions[row])).toEqual(items.map((i) => i.known + i.count - 1));
      }),
      { numRuns: 25 },
    );
  });

  test("are behind all prompts or behind none: a mix is refused, and nothing has changed", () => {
    const cache = cacheFor(gpu, model, "paged", 2);
    const [a, b] = [cache.open(), cache.open()];
    const before = [cache.usage(), gpu.memory.currentByPurpose];
    const items = [
      { place: a, tokens: [1, 2], prompt: 1 },
      { place: b, tokens: [3] },
    ];
    expect(() => makeBatch(gpu, model.config, cache, items, { apart: true })).toThrow(
      "batch: some sequences have tokens behind their prompts and some have not; wanted all or none",
    );
    expect([cache.usage(), gpu.memory.currentByPurpose]).toEqual(before);
    cache.free();
  });
});
