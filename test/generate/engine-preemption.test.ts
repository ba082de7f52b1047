import process from "node:process";
import { afterAll, describe, expect, test } from "vitest";
import { Engine } from "../../src/generate/engine.ts";
import type { EngineMetrics, EngineOptions } from "../../src/generate/engine-types.ts";
import { openTestGpu } from "../gpu-fixture.ts";
import { tokensOf } from "../model/tiny.ts";
import { loadLongTiny } from "./long-tiny.ts";

// Whoever makes room for others, and however, comes to the same tokens.
//
//   QUIRE_FULL=1 npx vitest run test/generate/engine-preemption      64 prompts × 128 tokens × 3 pools, all cells

const isFull = process.env.QUIRE_FULL !== undefined;
const PROMPTS = isFull ? 64 : 12;
const NEW_TOKENS = isFull ? 128 : 24;
/** Pages of 16 that a fraction of the sequences fit into at their full length. */
const POOLS = isFull ? [150, 250, 350] : [10];

const gpu = await openTestGpu();
const model = await loadLongTiny(gpu);
afterAll(() => model.free());

/** Of 4 to 67 tokens; every third begins with the same 20. */
const prompts = Array.from({ length: PROMPTS }, (_, i) => {
  const own = tokensOf(i, 4 + ((i * 29) % 64));
  return i % 3 === 0 ? [...tokensOf(999, 20), ...own] : own;
});
const sampling = { temperature: 1, topK: 40, seed: 11, maxNewTokens: NEW_TOKENS, ignoreEos: true };

async function run(options: EngineOptions): Promise<{ tokens: number[][]; metrics: EngineMetrics }> {
  const engine = await Engine.open(model, { pageSize: 16, maxSequences: PROMPTS, ...options });
  try {
    const tokens: number[][] = [];
    for await (const { promptIndex, completions } of engine.generate(prompts, sampling))
      tokens[promptIndex] = [...completions[0]!.tokens];
    expect(engine.space.usage()).toMatchObject({ reserved: 0, used: 0 });
    return { tokens, metrics: engine.metrics() };
  } finally {
    await engine.close();
  }
}

const free = await run({ kvPages: 1000, prefixCache: false, async: false });

test("without preemption every prompt gets all its tokens", () => {
  expect(free.metrics.preemptions).toBe(0);
  expect(free.tokens.map((tokens) => tokens.length)).toEqual(prompts.map(() => NEW_TOKENS));
  expect(new Set(free.tokens.map(String)).size).toBe(PROMPTS);
});

describe.each(POOLS)("%i pages", (kvPages) => {
  test.each([
    { chunkedPrefill: true, preemption: "recompute" },
    { chunkedPrefill: true, preemption: "swap" },
    { chunkedPrefill: false, preemption: "recompute" },
    { chunkedPrefill: false, preemption: "swap" },
  ] as const)("%j: the tokens of the run without preemption", async (how) => {
    // Steps shorter than some prompts, where prompts may be cut.
    const maxBatchedTokens = how.chunkedPrefill ? 48 : 256;
    const async = how.preemption === "swap";
    const { tokens, metrics } = await run({ kvPages, maxBatchedTokens, async, watermark: 0, ...how });
    expect(metrics.preemptions).toBeGreaterThan(0);
    if (how.preemption === "swap") expect(metrics.swappedPages).toBeGreaterThan(0);
    else expect(metrics.recomputedTokens).toBeGreaterThan(0);
    expect(tokens).toEqual(free.tokens);
    if (isFull) console.log(JSON.stringify({ kvPages, ...how, ...metrics }));
  });
});
