import process from "node:process";
import { afterAll, describe, expect, onTestFinished, test } from "vitest";
import { generate } from "../../src/generate/generate.ts";
import { Sequence } from "../../src/generate/sequence.ts";
import { DeviceLost, OutOfMemory } from "../../src/gpu/errors.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { makeCache } from "../../src/kv/make-cache.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { RaggedStep } from "../../src/model/ragged-step.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";
import { drive, GREEDY, member, openStep, PAGE, pagesOf, pieceOf, sampleOf, stripOf } from "./ragged.ts";
import { cacheFor, TINY, tokensOf } from "./tiny.ts";

const gpu = await openTestGpu();
const model = await Gpt2.load(gpu, TINY);
afterAll(() => model.free());
const V = model.config.vocabSize;

const LAYOUTS = ["pages", "strips"] as const;
const rowOf = { pages: pagesOf, strips: stripOf };
const wanting = (piece: number) => ({
  piece,
  settings: GREEDY,
  sequenceId: 0,
  generated: 0,
  wantsLogits: true,
});
const bits = (floats: Float32Array) => [...new Uint32Array(floats.slice().buffer)];

/** Everything in the cache becomes NaN: what is read without being written spoils a result. */
function poison(step: RaggedStep): void {
  for (const { k, v } of step.layers)
    for (const t of [k, v]) t.gpu.write(t, new Uint8Array(t.bytes).fill(0xff));
}

describe.each(LAYOUTS)("%s", (layout) => {
  test.each(["f32", "f16"] as const)(
    "%s keys and values: the logits of forward, bit for bit, whatever the mix of prompts, pieces and tokens",
    async (kvDtype) => {
      const cache = makeCache(gpu, model.cacheShape(kvDtype), {
        mode: layout === "pages" ? "paged" : "contiguous",
        ...{ sequences: 3, contextLength: 64, expectedLength: 64, pageSize: PAGE },
      });
      const step = await openStep(model, 3, { layout, kvDtype });
      poison(step);
      const places = [cache.open(), cache.open(), cache.open()];
      const sequences = [tokensOf(1, 20), tokensOf(2, 30), tokensOf(3, 9)];
      const done = [0, 0, 0];
      // New tokens of each sequence, step by step: whole prompts beside pieces beside single tokens, and sequences that wait.
      for (const counts of [
        [7, 16, 0],
        [1, 1, 5],
        [0, 8, 1],
        [9, 0, 0],
        [1, 1, 1],
      ]) {
        const taking = counts.flatMap((count, s) => (count > 0 ? [{ s, count }] : []));
        const tokensFor = ({ s, count }: { s: number; count: number }) =>
          sequences[s]!.slice(done[s], done[s]! + count);
        const logits = model.forward(
          cache,
          taking.map((t) => ({ place: places[t.s]!, tokens: tokensFor(t) })),
        );
        const wanted = await logits.read();
        logits.free();
        const { result } = step.launch({
          pieces: taking.map((t) => ({
            tokens: tokensFor(t),
            position: done[t.s]!,
            slotRow: rowOf[layout](t.s),
          })),
          samples: taking.map((_, piece) => wanting(piece)),
        });
        const { tokens, logits: given } = await result;
        taking.forEach((_, i) => {
          const row = wanted.subarray(i * V, (i + 1) * V);
          expect(bits(given.get(i)!), `${counts}`).toEqual(bits(row));
          expect(tokens[i]).toBe(row.indexOf(Math.max(...row)));
        });
        for (const { s, count } of taking) done[s]! += count;
      }
      step.free();
      cache.free();
    },
  );

  test("a sequence has the same tokens alone and in batches of 8, 64 and 256, chunked or not", async () => {
    // Strips differ from pages in addresses alone: a quarter of the sequences will do.
    const most = layout === "pages" ? 256 : 64;
    const step = await openStep(model, most, { layout, maxBatchedTokens: 1024 });
    poison(step);
    const sampling = { temperature: 1, topP: 0.95, seed: 3 };
    const make = (s: number, slot = s) =>
      member(tokensOf(s, 1 + (s % 5)), rowOf[layout](slot), { id: s, settings: sampling });
    const run = (which: readonly number[], chunk?: number) =>
      drive(
        step,
        which.map((s, i) => make(s, i)),
        3,
        chunk,
      );
    const all = await run(Array.from({ length: most }, (_, s) => s));
    expect(new Set(all.map(String)).size).toBeGreaterThan(most / 3);
    const some = (count: number) => Array.from({ length: count }, (_, i) => (i * 37 + 19) % most);
    const wanted = (which: readonly number[]) => which.map((s) => all[s]);
    expect(await run(some(64))).toEqual(wanted(some(64)));
    expect(await run(some(8))).toEqual(wanted(some(8)));
    expect(await run(some(8), 2)).toEqual(wanted(some(8)));
    for (const s of [9, most - 2]) expect(await run([s])).toEqual(wanted([s]));
    step.free();
  });
});

test("with the sizes of kernels that a GPU has, the logits of forward all the same", async () => {
  const { QUIRE_TEST_ADAPTER: adapter = "auto" } = process.env;
  const on = await Gpu.open({ adapter, forms: "gpu" });
  onTestFinished(() => on.close());
  const other = await Gpt2.load(on, TINY);
  const cache = cacheFor(on, other, "paged", 18);
  const step = await openStep(other, 18);
  poison(step);
  // 18 rows are computed by matmul, each alone by matvec; one row alone has a head of its own.
  const prompts = Array.from({ length: 18 }, (_, s) => tokensOf(s, s === 0 ? 19 : 1));
  const items = prompts.map((tokens) => ({ place: cache.open(), tokens }));
  const logits = other.forward(cache, items);
  const wanted = await logits.read();
  const batchOf = (which: readonly number[]) => ({
    pieces: which.map((s) => ({ tokens: prompts[s]!, position: 0, slotRow: pagesOf(s) })),
    samples: which.map((_, piece) => wanting(piece)),
  });
  for (const which of [prompts.map((_, s) => s), [0], [17], [3, 4, 5]]) {
    const { logits: given } = await step.launch(batchOf(which)).result;
    which.forEach((s, i) => {
      expect(bits(given.get(i)!), `${s} of ${which}`).toEqual(bits(wanted.subarray(s * V, (s + 1) * V)));
    });
  }
});

test("tokens are those of generate, for the same seeds, ids and settings, a repetition penalty included", async () => {
  const settings = [
    GREEDY,
    { temperature: 0.8, topK: 5, seed: 7 },
    { temperature: 1.2, topP: 0.9, repetitionPenalty: 1.5, seed: 7 },
    { temperature: 0, repetitionPenalty: 2, seed: 1 },
    { temperature: 1, minP: 0.1, seed: 2n ** 63n },
  ];
  const prompts = settings.map((_, s) => tokensOf(s, 3 + s));
  const cache = cacheFor(gpu, model, "paged", settings.length);
  const sequences = settings.map(
    (sampling, id) =>
      new Sequence({ prompt: prompts[id]!, maxNewTokens: 8, contextLength: 64, sampling, id }),
  );
  for await (const _ of generate(model, cache, sequences)) {
    // Sequences keep their tokens.
  }
  const step = await openStep(model, 8);
  const members = settings.map((sampling, id) => {
    const seen = "repetitionPenalty" in sampling ? { seen: step.openSeen(prompts[id]!) } : {};
    return member(prompts[id]!, pagesOf(id), { id, settings: sampling, ...seen });
  });
  const tokens = await drive(step, members, 8);
  expect(tokens).toEqual(sequences.map((s) => s.tokens.slice(s.promptLength)));
  step.free();
  cache.free();
});

test("tokens forwarded on the GPU are the tokens that the host would have sent", async () => {
  const step = await openStep(model, 2);
  const settings = { temperature: 1, seed: 11 };
  const make = () => [0, 1].map((s) => member(tokensOf(s, 5 + s), pagesOf(s), { id: s, settings }));
  const known = await drive(step, make(), 6);

  const members = make();
  const results: Promise<{ tokens: Uint32Array }>[] = [];
  let last: number | undefined;
  for (let i = 0; i < 6; i++) {
    const pieces = members.map((m, sample) =>
      last === undefined
        ? pieceOf(m)
        : { tokens: [{ launch: last, sample }], position: m.prompt + i - 1, slotRow: m.slotRow },
    );
    const samples = members.map((m, piece) => ({ ...sampleOf(m, piece), generated: i }));
    // Never awaited in between: all launches are in flight at once.
    const { launch, result } = step.launch({ pieces, samples });
    last = launch;
    results.push(result);
  }
  const rows = await Promise.all(results);
  expect([0, 1].map((s) => rows.map(({ tokens }) => tokens[s]))).toEqual(known);
  step.free();
});

test("several samples of one piece: each its own settings, from the same logits", async () => {
  const step = await openStep(model, 8);
  const prompt = tokensOf(4, 6);
  const samples = Array.from({ length: 8 }, (_, sequenceId) => ({
    ...{ piece: 0, sequenceId, generated: 0 },
    settings: { temperature: 1.5, seed: 5 },
  }));
  const pieces = [{ tokens: prompt, position: 0, slotRow: pagesOf(0) }];
  const { tokens } = await step.launch({ pieces, samples }).result;
  for (const [id, token] of tokens.entries()) {
    const alone = [member(prompt, pagesOf(1), { id, settings: samples[id]!.settings })];
    expect(await drive(step, alone, 1)).toEqual([[token]]);
  }
  expect(new Set(tokens).size).toBeGreaterThan(3);
  step.free();
});

test("tokens do not depend on which pages a sequence has", async () => {
  const step = await openStep(model, 2);
  const make = (slotRow: number[]) => [member(tokensOf(8, 30), slotRow)];
  const ordered = await drive(step, make(pagesOf(0)), 6);
  poison(step);
  expect(await drive(step, make([15, 2, 9, 4, 11, 7, 1, 3]), 6)).toEqual(ordered);
  step.free();
});

test("a step is recorded once for each size, which batches are padded to", async () => {
  const step = await openStep(model, 4);
  const launch = (lengths: readonly number[], samples: number) =>
    step.launch({
      pieces: lengths.map((n, s) => ({ tokens: tokensOf(s, n), position: 0, slotRow: pagesOf(s) })),
      samples: Array.from({ length: samples }, (_, piece) => wanting(piece)),
    }).result;
  for (const [lengths, samples, recordings] of [
    [[5, 3], 2, 1], // 8 rows, 2 samples
    [[1, 4], 2, 1],
    [[6], 1, 2], // 8 rows, 1 sample
    [[6], 0, 3], // a piece of a prompt: nothing is sampled
    [[1, 1, 1], 3, 4], // 4 rows, 4 samples
    [[1, 1, 1, 1], 4, 4],
  ] as const) {
    const { tokens, logits } = await launch(lengths, samples);
    expect([tokens.length, logits.size, step.recordings]).toEqual([samples, samples, recordings]);
  }
  step.free();
});

describe("memory", () => {
  const OPTIONS = { pageSize: PAGE, kvDtype: "f16", maxSeqLen: 64 } as const;

  test.each([
    { layout: "pages", maxSequences: 1, maxBatchedTokens: 1 },
    { layout: "pages", maxSequences: 4, maxBatchedTokens: 100 },
    { layout: "pages", maxSequences: 64, maxBatchedTokens: 64 },
    { layout: "strips", maxSequences: 5, maxBatchedTokens: 3 },
  ] as const)(
    "is what footprint says: $layout, $maxSequences sequences, $maxBatchedTokens tokens",
    async (sizes) => {
      const options = { ...OPTIONS, ...sizes };
      await gpu.finish();
      gpu.trim();
      const before = gpu.memory.currentByPurpose;
      const slots = 8 * 9;
      const step = await RaggedStep.open(model, { ...options, slots });
      gpu.memory.resetPeak();
      // Every size there is, from the smallest: none may take memory of its own.
      for (let rows = 1; ; rows = Math.min(2 * rows, sizes.maxBatchedTokens)) {
        for (const samples of new Set([0, 1, Math.min(rows, sizes.maxSequences), sizes.maxSequences])) {
          const pieces = [
            { tokens: tokensOf(0, Math.min(rows, 64)), position: 0, slotRow: rowOf[sizes.layout](0) },
          ];
          await step.launch({
            pieces,
            samples: Array.from({ length: samples }, () => ({ ...wanting(0), wantsLogits: samples === 1 })),
          }).result;
        }
        if (rows === sizes.maxBatchedTokens) break;
      }
      const peak = gpu.memory.peakOfEach;
      const wanted = RaggedStep.footprint(model, options, 1);
      expect(peak.activations - before.activations).toBe(wanted.activations);
      expect(peak.kv - before.kv).toBe(slots * wanted.slotBytes + wanted.padding);
      const tables = peak.tables - before.tables;
      expect(tables).toBeLessThanOrEqual(wanted.tables);
      expect(tables).toBeGreaterThan(wanted.tables - 24_576);
      expect(peak.staging - before.staging).toBeLessThanOrEqual(wanted.staging);
      expect(wanted.total).toBe(wanted.activations + wanted.tables + wanted.staging + wanted.padding);
      step.free();
    },
  );

  test("goes back when the step is freed, also with launches in flight", async () => {
    await expectLedgerUnchanged(gpu, async () => {
      const step = await openStep(model, 2);
      step.openSeen([1, 2]);
      const members = [0, 1].map((s) => member(tokensOf(s, 9), pagesOf(s)));
      await drive(step, members, 3);
      const { result } = step.launch({ pieces: [pieceOf(members[0]!)], samples: [wanting(0)] });
      step.free();
      await result;
    });
  });
});

describe("what goes wrong late", () => {
  const openNull = async (memoryBudget?: number) => {
    const on = await Gpu.open({ backend: "null", ...(memoryBudget ? { memoryBudget } : {}) });
    onTestFinished(() => on.close());
    return { on, small: await Gpt2.load(on, TINY) };
  };
  const launch = (step: RaggedStep) =>
    step.launch({
      pieces: [{ tokens: [1, 2], position: 0, slotRow: pagesOf(0) }],
      samples: [{ piece: 0, settings: GREEDY, sequenceId: 0, generated: 0 }],
    }).result;

  test("a device that is lost is told by the results of all launches in flight, and of those after", async () => {
    const { on, small } = await openNull();
    const step = await openStep(small, 2);
    const flying = [launch(step), launch(step)];
    on.device.destroy();
    flying.push(launch(step));
    for (const { status, reason } of (await Promise.allSettled(flying)) as PromiseRejectedResult[]) {
      expect(status).toBe("rejected");
      expect(reason).toBeInstanceOf(DeviceLost);
    }
    await expect(launch(step)).rejects.toThrow(DeviceLost);
    step.free();
  });

  test("too small a budget refuses to open, with nothing left behind", async () => {
    const { on, small } = await openNull(1 << 20);
    on.trim();
    const before = on.memory.current;
    await expect(openStep(small, 16)).rejects.toThrow(OutOfMemory);
    on.trim();
    expect(on.memory.current).toBe(before);
    // What fits is opened afterwards.
    const step = await openStep(small, 1);
    expect((await launch(step)).tokens).toHaveLength(1);
    step.free();
  });

  test("a budget that has no room for results is told by the result, and the next step can run", async () => {
    const { on, small } = await openNull(1 << 20);
    const step = await openStep(small, 1);
    await launch(step);
    on.trim();
    const rest = on.memory.alloc(on.memory.budget - on.memory.current, "kv", "the rest");
    await expect(launch(step)).rejects.toThrow(OutOfMemory);
    on.memory.free(rest);
    expect((await launch(step)).tokens).toHaveLength(1);
    step.free();
  });
});

test("a batch that cannot be is refused by name, and changes nothing", async () => {
  const step = await openStep(model, 2, { maxBatchedTokens: 16 });
  const piece = { tokens: [1, 2], position: 0, slotRow: pagesOf(0) };
  const sample = { piece: 0, settings: GREEDY, sequenceId: 0, generated: 0 };
  const refusal = (pieces: object, samples: object = {}) => {
    try {
      step.launch({ pieces: [{ ...piece, ...pieces }], samples: [{ ...sample, ...samples }] });
    } catch (error) {
      return (error as Error).message;
    }
    return "none";
  };
  expect(refusal({ tokens: [1, 131] })).toMatch("token id 131 is out of vocabulary (0..130)");
  expect(refusal({ tokens: [1.5] })).toMatch("token id 1.5 is out of vocabulary");
  expect(refusal({ tokens: [] })).toMatch("0 tokens at position 0");
  expect(refusal({ position: 63 })).toMatch("2 tokens at position 63");
  expect(refusal({ tokens: tokensOf(0, 9), slotRow: [1] })).toMatch("1 entries of the slot table");
  expect(refusal({ tokens: tokensOf(0, 17) })).toMatch("at most 16 tokens");
  expect(refusal({ tokens: [{ launch: 0, sample: 0 }] })).toMatch("wants a token of launch 0");
  expect(refusal({}, { piece: 1 })).toMatch("sample 0 is of piece 1; there are 1");
  expect(refusal({}, { settings: { temperature: 0, repetitionPenalty: 2, seed: 0 } })).toMatch(
    "no row of tokens seen",
  );
  expect(refusal({}, { seen: 3 })).toMatch("the row 3 of tokens seen is not open");
  const { launch, result } = step.launch({ pieces: [piece], samples: [sample] });
  expect(launch).toBe(0);
  expect((await result).tokens).toHaveLength(1);
  step.free();
});
