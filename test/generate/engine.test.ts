import process from "node:process";
import { afterAll, describe, expect, test } from "vitest";
import { BadInput } from "../../src/check.ts";
import { Engine } from "../../src/generate/engine.ts";
import type { EngineOptions, GenerationOptions, PromptOutput } from "../../src/generate/engine-types.ts";
import { generate } from "../../src/generate/generate.ts";
import { Sequence } from "../../src/generate/sequence.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";
import { cacheFor, TINY, tokensOf } from "../model/tiny.ts";
import { loadLongTiny } from "./long-tiny.ts";

// The engine with a model, of random weights.
//
//   QUIRE_FULL=1 npx vitest run test/generate/engine.test      10,000 requests

const REQUESTS = process.env.QUIRE_FULL === undefined ? 40 : 10_000;

const gpu = await openTestGpu();
const model = await loadLongTiny(gpu, 10);
afterAll(() => model.free());

const GREEDY = { temperature: 0, seed: 0 };

async function withEngine<T>(options: EngineOptions, body: (engine: Engine) => Promise<T>): Promise<T> {
  const engine = await Engine.open(model, { kvPages: 120, ...options });
  try {
    return await body(engine);
  } finally {
    await engine.close();
  }
}

/** Outputs by prompt. */
async function all(
  engine: Engine,
  prompts: readonly (readonly number[])[],
  options: GenerationOptions,
): Promise<PromptOutput[]> {
  const outputs: PromptOutput[] = [];
  for await (const output of engine.generate(prompts, options)) outputs[output.promptIndex] = output;
  return outputs;
}

const firstTokens = (outputs: readonly PromptOutput[]) => outputs.map((o) => o.completions[0]!.tokens);

/** What `generate` makes of each prompt alone, as sequence number i. */
async function alone(prompts: readonly (readonly number[])[], options: GenerationOptions) {
  const { maxNewTokens, ignoreEos, ...sampling } = options;
  const { contextLength, eosTokenIds: eosIds } = model.config;
  const results: number[][] = [];
  for (const [id, prompt] of prompts.entries()) {
    const sequence = new Sequence({ prompt, maxNewTokens, contextLength, sampling, id, ignoreEos, eosIds });
    const cache = cacheFor(gpu, model, "paged", 1, { expectedLength: prompt.length + maxNewTokens });
    try {
      for await (const _ of generate(model, cache, [sequence]));
    } finally {
      cache.free();
    }
    results.push(sequence.tokens.slice(prompt.length));
  }
  return results;
}

describe("tokens are those of each prompt alone, from generate", () => {
  const prompts = [3, 17, 40, 1].map((length, i) => tokensOf(i, length));
  const settings: GenerationOptions[] = [
    { ...GREEDY, maxNewTokens: 6 },
    {
      temperature: 1.2,
      topK: 30,
      topP: 0.95,
      minP: 0.001,
      seed: 2n ** 63n,
      maxNewTokens: 6,
      ignoreEos: true,
    },
    { temperature: 0.9, repetitionPenalty: 1.4, seed: 5, maxNewTokens: 6, ignoreEos: true },
  ];
  test.each(settings)("$temperature, penalty $repetitionPenalty", async (options) => {
    const expected = await alone(prompts, options);
    // Chunks of 9: every long prompt is cut.
    for (const how of [{ async: false }, { async: true, maxBatchedTokens: 9 }]) {
      const outputs = await withEngine(how, (engine) => all(engine, prompts, options));
      expect(firstTokens(outputs)).toEqual(expected);
    }
  });

  test.each(["strips-max", "strips-exact"] as const)("%s", async (layout) => {
    const options = settings[1]!;
    const how = { layout, kvPages: undefined, kvBytes: 2 ** 20, maxSeqLen: 64 };
    const outputs = await withEngine(how, (engine) => all(engine, prompts, options));
    expect(firstTokens(outputs)).toEqual(await alone(prompts, options));
  });
});

test("n samples share the prompt's pages, and each is the sample of its number alone", async () => {
  const prompt = tokensOf(7, 40);
  const options = { temperature: 1, seed: 3, maxNewTokens: 12, ignoreEos: true, n: 4, sequenceId: 5 };
  await withEngine({ prefixCache: false }, async (engine) => {
    let reserved = 0;
    let logical = 0;
    const off = engine.on((event) => {
      if (event.type !== "step") return;
      reserved = Math.max(reserved, event.step.kv.reserved);
      logical = Math.max(logical, event.step.kv.logical);
    });
    const [output] = await all(engine, [prompt], options);
    off();
    const samples = output!.completions.map(({ tokens }) => tokens);
    expect(new Set(samples.map(String)).size).toBe(4);
    // Two full pages of the prompt once; its last 8 tokens and the 11 that are fed back take two pages in each sample.
    expect([reserved, logical]).toEqual([(2 + 4 * 2) * 16, 4 * 51]);
    for (const [i, sample] of samples.entries()) {
      const [single] = await all(engine, [prompt], { ...options, n: 1, sequenceId: 5 + i });
      expect(single!.completions[0]!.tokens).toEqual(sample);
    }
  });
});

test("of a shared prefix of 512 tokens at least 95 % are computed once, and the tokens are the same", async () => {
  const prefix = tokensOf(1, 512);
  const prompts = [3, 20, 33].map((length, i) => [...prefix, ...tokensOf(i + 2, length)]);
  const options = { ...GREEDY, maxNewTokens: 3, ignoreEos: true };
  const fresh = await withEngine({ prefixCache: false }, (engine) => all(engine, prompts, options));
  await withEngine({}, async (engine) => {
    const [first] = await all(engine, [prompts[0]!], options);
    const others = await all(engine, prompts.slice(1), options);
    expect(firstTokens([first!, ...others])).toEqual(firstTokens(fresh));
    expect([first!, ...others].map(({ cachedTokens }) => cachedTokens)).toEqual([0, 512, 512]);
    const { prefixHits, computedTokens } = engine.metrics();
    expect(prefixHits / (2 * prefix.length)).toBeGreaterThanOrEqual(0.95);
    // Of each, the last token that it chose was not computed.
    expect(computedTokens).toBe(prompts.reduce((sum, p) => sum + p.length + 2, 0) - prefixHits);
    // Another tenant finds nothing of it.
    const [stranger] = await all(engine, [prompts[0]!], { ...options, salt: "another" });
    expect(stranger!.cachedTokens).toBe(0);
  });
});

test(`${REQUESTS} requests, every fifth aborted: ledger and free pages return to where they started`, async () => {
  await expectLedgerUnchanged(gpu, () =>
    withEngine({ kvPages: 40, async: true, maxSequences: 32, preemption: "swap" }, async (engine) => {
      const before = engine.space.usage();
      const ids: number[] = [];
      for (let i = 0; i < REQUESTS; i++) {
        const sampling = { temperature: i % 2, seed: i, repetitionPenalty: i % 7 === 0 ? 1.1 : 1 };
        const prompt = tokensOf(i, 1 + ((i * 7) % 50));
        ids.push(engine.submit({ prompt, sampling, maxNewTokens: 1 + (i % 9), ignoreEos: true }));
        if (i % 8 === 7) await engine.step();
        if (i % 5 === 4) while (!engine.abort(ids.splice((i * 13) % ids.length, 1)[0]!));
      }
      await engine.run();
      expect(engine.metrics()).toMatchObject({ finished: REQUESTS * 0.8, aborted: REQUESTS / 5, kvUsage: 0 });
      const after = engine.space.usage();
      expect({ ...after, cached: before.cached }).toEqual(before);
    }),
  );
});

test("close gives back what open, steps and requests still open took", async () => {
  await expectLedgerUnchanged(gpu, () =>
    withEngine({ kvPages: 20, async: true }, async (engine) => {
      engine.submit({ prompt: tokensOf(1, 20), sampling: GREEDY, maxNewTokens: 200 });
      await engine.step();
      await engine.step();
    }),
  );
});

describe("memory", () => {
  test("the start says where it goes", async () => {
    const lines: string[] = [];
    await withEngine({ kvPages: 80, log: (line) => lines.push(line) }, async ({ memory, space }) => {
      expect(memory).toMatchObject({ pages: 80, tokens: 1280, maxConcurrency: 2 });
      expect(gpu.memory.currentByPurpose.kv).toBe(memory.kvBytes);
      expect(space.usage().total).toBe(1280);
    });
    expect(lines.slice(1)).toEqual([
      "KV cache: 80 pages of 16 tokens, 1,280 tokens",
      "At once: 2.00 requests of 640 tokens, the most that one can have",
    ]);
    expect(lines[0]).toMatch(/^GPU memory: [\d.]+ MiB taken before, [\d.]+ MiB for steps of up to /);
  });

  test("a budget is kept, and one too small is refused with nothing left behind", async () => {
    const { info } = gpu;
    const open = (memoryBudget?: number) =>
      Gpu.open({ adapter: info.software ? "software" : "auto", memoryBudget });
    const budget = 5 * 2 ** 20;
    const small = await open(budget);
    try {
      const tiny = await Gpt2.load(small, TINY);
      const engine = await Engine.open(tiny, { maxSequences: 4, maxBatchedTokens: 32 });
      const output = await all(engine, [tokensOf(1, 9)], { ...GREEDY, maxNewTokens: 3 });
      expect(output).toHaveLength(1);
      // All of the budget but a page, and what the step did not need.
      expect(small.memory.peak).toBeLessThanOrEqual(budget);
      expect(engine.memory.kvBytes).toBeGreaterThan(0.8 * budget);
      await engine.close();
      small.trim();
      const before = small.memory.current;
      const steps = { maxSequences: 4, maxBatchedTokens: 8192 };
      await expect(Engine.open(tiny, steps)).rejects.toThrow(BadInput);
      await expect(Engine.open(tiny, steps)).rejects.toThrow(
        /^the memory budget of 5.0 MiB leaves .* less than nothing/,
      );
      expect(small.memory.current).toBe(before);
    } finally {
      await small.close();
    }
  });
});
