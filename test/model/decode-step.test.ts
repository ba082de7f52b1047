import process from "node:process";
import { afterAll, describe, expect, test, vi } from "vitest";
import { Gpu } from "../../src/gpu/gpu.ts";
import { prepareRun, submitRun } from "../../src/gpu/replay.ts";
import type { Place, RememberingCache } from "../../src/kv/cache.ts";
import { DecodeStep } from "../../src/model/decode-step.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged } from "../gpu-fixture.ts";
import { cacheFor, golden, TINY, tokensOf } from "./tiny.ts";

const { QUIRE_TEST_ADAPTER: adapter = "auto" } = process.env;

/** One batch of sequences in a cache, each with its last token still to be computed, and the step that computes it. */
interface Batch {
  readonly cache: RememberingCache;
  readonly places: readonly Place[];
  readonly step: DecodeStep;
}

type Mode = "contiguous" | "paged";
const GREEDY = { temperature: 0, seed: 0 };
const STEPS = 12;

/** The forward pass over the prompts, then a decode step for `tokens`, the first generated ones, recorded. */
async function start(
  model: Gpt2,
  mode: Mode,
  prompts: readonly (readonly number[])[],
  tokens: readonly number[],
): Promise<Batch> {
  const cache = cacheFor(model.gpu, model, mode, prompts.length, { pageSize: 8 }) as RememberingCache;
  const places = prompts.map(() => cache.open());
  model
    .forward(
      cache,
      prompts.map((prompt, s) => ({ place: places[s]!, tokens: prompt })),
    )
    .free();
  const step = DecodeStep.make(model, cache, { sequences: prompts.length, maxContext: 40, greedy: true });
  for (const place of places) cache.reserve(place, STEPS + 1);
  step.state.load(
    prompts.map((prompt, s) => ({
      tokens: [...prompt, tokens[s]!],
      generated: 1,
      id: s,
      sampling: GREEDY,
      place: places[s]!,
    })),
  );
  return { cache, places, step };
}

/** Run the step once: its logits, padding and all, as bits. */
async function logitsOf({ step, cache, places }: Batch): Promise<Uint32Array> {
  const { gpu } = step.state;
  // The head's result is the last binding of its last launch, and nothing after it is given its memory.
  const head = step.recording.dispatches.filter(({ stage }) => stage === "head").at(-1)!;
  const allocation = head.allocations.at(-1)!;
  const bytes = 4 * 132 * step.state.sequences; // the tiny model's vocabulary of 131, padded
  const range = { allocation, offset: 0, bytes };
  const result = await submitRun(gpu, prepareRun(gpu, step.recording, 1, range, 0, bytes));
  for (const place of places) cache.grow(place, 1);
  return new Uint32Array(result);
}

const free = ({ step, cache }: Batch) => {
  step.free();
  cache.free();
};

const PROMPTS = {
  "one sequence": [tokensOf(0, 7)],
  // Page boundaries at 8 and 16: before, at and after one, and one that two sequences cross at different steps.
  "three sequences of different lengths": [tokensOf(1, 6), tokensOf(2, 16), tokensOf(3, 1)],
};

describe.each(["software", "gpu"] as const)("the form for %s", async (forms) => {
  const gpu = await Gpu.open({ adapter, forms });
  const model = await Gpt2.load(gpu, TINY);
  afterAll(() => gpu.close());

  describe.each(["contiguous", "paged"] as const)("cache %s", (mode) => {
    test.each(Object.entries(PROMPTS))(
      "%s: the logits and tokens of forward for one new token each, bit for bit",
      async (_, prompts) => {
        const first = prompts.map((_, s) => 20 + s);
        const batch = await start(model, mode, prompts, first);
        const twin = cacheFor(gpu, model, mode, prompts.length, { pageSize: 8 });
        const places = prompts.map(() => twin.open());
        model
          .forward(
            twin,
            prompts.map((prompt, s) => ({ place: places[s]!, tokens: prompt })),
          )
          .free();
        let tokens = first;
        for (let i = 0; i < STEPS; i++) {
          const logits = model.forward(
            twin,
            tokens.map((token, s) => ({ place: places[s]!, tokens: [token], prompt: 0 })),
          );
          const bits = new Uint32Array(await gpu.read(logits));
          const values = await logits.read();
          logits.free();
          expect(await logitsOf(batch), `step ${i}`).toEqual(bits);
          tokens = tokens.map((_, s) => {
            const row = values.subarray(s * 131, (s + 1) * 131);
            return row.indexOf(Math.max(...row));
          });
          expect([...(await batch.step.state.arrays.row("tokenIds").readIntegers())]).toEqual(tokens);
        }
        expect(batch.cache.usage().used).toBe(twin.usage().used);
        free(batch);
        twin.free();
      },
    );
  });

  test("several steps in one pass are the same steps one by one", async () => {
    const prompts = PROMPTS["three sequences of different lengths"];
    const ringOf = async (times: readonly number[]) => {
      const batch = await start(model, "paged", prompts, [20, 21, 22]);
      const { step } = batch;
      for (const n of times)
        await submitRun(gpu, prepareRun(gpu, step.recording, n, step.state.tokens, 0, 4));
      const ring = (await step.state.tokens.readIntegers()).slice(0, 3 * STEPS);
      free(batch);
      return ring;
    };
    const one = await ringOf(Array(STEPS).fill(1));
    expect(await ringOf([8, 4])).toEqual(one);
    expect(await ringOf([STEPS])).toEqual(one);
  });

  test("a step is 3 + 5 · L launches, 4 + 5 · L on the software adapter, recorded once and counted each time", async () => {
    const batch = await start(model, "paged", PROMPTS["one sequence"], [20]);
    const before = gpu.dispatchCount;
    const { dispatches } = batch.step.recording;
    expect(dispatches).toHaveLength((forms === "software" ? 4 : 3) + 5 * model.config.layers);
    const record = vi.spyOn(gpu, "dispatch");
    for (let i = 0; i < 3; i++) await logitsOf(batch);
    expect(gpu.dispatchCount - before).toBe(3 * dispatches.length);
    expect(record).not.toHaveBeenCalled();
    record.mockRestore();
    expect([...new Set(dispatches.map((d) => d.stage))]).toEqual([
      "embed",
      "layer 0",
      "layer 1",
      "head",
      "sample",
    ]);
    expect(gpu.stage).toBe("");
    free(batch);
  });
});

describe("what a step takes it gives back", async () => {
  const gpu = await Gpu.open({ adapter });
  const model = await Gpt2.load(gpu, TINY);
  afterAll(() => gpu.close());
  const cacheOf = (mode: Mode | "none" = "paged") =>
    cacheFor(gpu, model, mode, 2, { pageSize: 8 }) as RememberingCache;

  test("the ledger, after a step that ran and after one that never did", async () => {
    await expectLedgerUnchanged(gpu, async () => {
      const batch = await start(model, "paged", PROMPTS["one sequence"], [20]);
      await logitsOf(batch);
      free(batch);
    });
    const cache = cacheOf();
    await expectLedgerUnchanged(gpu, () =>
      DecodeStep.make(model, cache, { sequences: 2, maxContext: 30 }).free(),
    );
    cache.free();
  });

  test("the ledger, when recording fails half-way; then work goes on", async () => {
    const cache = cacheOf();
    const empty = Tensor.empty;
    await expectLedgerUnchanged(gpu, () => {
      for (let failing = 1; failing <= 16; failing += 3) {
        let made = 0;
        Tensor.empty = (...args) => {
          if (++made === failing) throw new Error("no room");
          return empty.apply(Tensor, args);
        };
        try {
          expect(
            () => DecodeStep.make(model, cache, { sequences: 2, maxContext: 30 }),
            `tensor ${failing}`,
          ).toThrow("no room");
        } finally {
          Tensor.empty = empty;
        }
      }
    });
    expect(gpu.stage).toBe("");
    DecodeStep.make(model, cache, { sequences: 2, maxContext: 30 }).free();
    cache.free();
  });

  test("only a cache that remembers, and heads of whole quads", async () => {
    for (const [mode, expected] of [
      ["none", false],
      ["contiguous", true],
      ["paged", true],
    ] as const) {
      const cache = cacheOf(mode);
      expect(DecodeStep.supports(model, cache)).toBe(expected);
      cache.free();
    }
    const cache = cacheOf();
    const odd = new Gpt2(gpu, { ...model.config, heads: 8, headSize: 6 }, model.weights);
    expect(DecodeStep.supports(odd, cache)).toBe(false);
    const wide = new Gpt2(gpu, { ...model.config, channels: 65536 }, model.weights);
    expect(DecodeStep.supports(wide, cache)).toBe(false);
    cache.free();
  });

  test("an untied head and the erf form of GELU", async () => {
    const untied = await Gpt2.load(gpu, golden("tiny-erf-untied"));
    const prompt = tokensOf(5, 9);
    const batch = await start(untied, "contiguous", [prompt], [33]);
    const twin = cacheFor(gpu, untied, "contiguous", 1);
    const logits = untied.forward(twin, [
      { place: twin.open(), tokens: [...prompt, 33], prompt: prompt.length },
    ]);
    expect(await logitsOf(batch)).toEqual(new Uint32Array(await gpu.read(logits)));
    logits.free();
    free(batch);
    twin.free();
    untied.free();
  });
});
