import process from "node:process";
import fc from "fast-check";
import { expect, test } from "vitest";
import { Engine } from "../../src/generate/engine.ts";
import type { EngineEvent } from "../../src/generate/engine-types.ts";
import { fakeParts, tokenOf } from "./fake-device.ts";

// Pages that go to the host find no room there, again and again.
//
//   QUIRE_RUNS=8000 QUIRE_SEED=9 npx vitest run test/generate/engine-swap.test.ts      more of it

const requests = fc.array(
  fc.record({
    length: fc.integer({ min: 1, max: 12 }),
    maxNewTokens: fc.integer({ min: 1, max: 20 }),
    n: fc.constantFrom(1, 1, 1, 2),
    priority: fc.integer({ min: 0, max: 2 }),
  }),
  { minLength: 4, maxLength: 8, size: "max" },
);

type Example = [
  { kvPages: number; maxBatchedTokens: number; maxSequences: number; prefixCache: boolean; async: boolean },
  { length: number; maxNewTokens: number; n: number; priority: number }[],
  boolean[],
];

const request = (length: number, maxNewTokens: number, n: number, priority: number) => ({
  length,
  maxNewTokens,
  n,
  priority,
});

/** What went wrong once. */
const EXAMPLES: Example[] = [
  // A prompt of a whole page, shared by two samples, came back from the host: all of it was found, and nothing was left to compute.
  [
    { kvPages: 10, maxBatchedTokens: 7, maxSequences: 7, prefixCache: true, async: false },
    [
      request(8, 12, 2, 1),
      request(5, 14, 1, 0),
      request(1, 1, 1, 0),
      request(1, 10, 2, 1),
      request(8, 5, 2, 1),
      request(1, 1, 1, 0),
    ],
    [false, false, true, true],
  ],
  // Pages were wanted back in the step after the one that sent them, before anybody knew that they were refused.
  [
    { kvPages: 8, maxBatchedTokens: 7, maxSequences: 5, prefixCache: false, async: true },
    [
      request(11, 7, 2, 1),
      request(10, 13, 1, 0),
      request(1, 4, 1, 1),
      request(3, 5, 1, 0),
      request(1, 1, 1, 1),
      request(1, 1, 1, 1),
      request(12, 13, 1, 0),
    ],
    [true, false, false],
  ],
];

test("whenever pages find no room on their way to the host, all requests get their tokens", async () => {
  const options = fc.record({
    kvPages: fc.integer({ min: 8, max: 12 }),
    maxBatchedTokens: fc.integer({ min: 1, max: 40 }),
    maxSequences: fc.integer({ min: 2, max: 9 }),
    prefixCache: fc.boolean(),
    async: fc.boolean(),
  });
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(options, requests, fc.array(fc.boolean()), async (settings, all, refusals) => {
      const parts = fakeParts({ ...settings, preemption: "swap", watermark: 0, pageSize: 8 });
      const { device } = parts;
      const engine = new Engine(parts);
      const ended: EngineEvent[] = [];
      engine.on((event) => ended.push(event), ["finished"]);
      device.onLaunch = () => {
        device.refusedReads = (refusals[device.launches % refusals.length] ?? true) ? 1 : 0;
      };
      for (const [i, { length, ...rest }] of all.entries()) {
        const prompt = Array.from({ length }, (_, p) => (p < 9 ? p : p + i));
        engine.submit({ prompt, sampling: { temperature: 0, seed: 0 }, sequenceId: 2 * i, ...rest });
        if (i % 3 === 2) await engine.step();
      }
      await engine.run();
      expect(ended).toHaveLength(all.length);
      for (const event of ended)
        if (event.type === "finished")
          for (const { index, tokens } of event.output.completions)
            expect(tokens).toEqual(tokens.map((_, j) => tokenOf(2 * event.id + index, j)));
      expect(engine.space.usage()).toMatchObject({ reserved: 0, used: 0 });
      refused += engine.metrics().recomputedTokens;
      await engine.close();
    }),
    {
      examples: EXAMPLES,
      numRuns: Number(process.env.QUIRE_RUNS ?? 200),
      seed: Number(process.env.QUIRE_SEED ?? 5),
    },
  );
  expect(refused).toBeGreaterThan(0);
});
