import fc from "fast-check";
import { expect, test } from "vitest";
import { Engine } from "../../src/generate/engine.ts";
import type { EngineEvent } from "../../src/generate/engine-types.ts";
import { fakeParts, tokenOf } from "./fake-device.ts";

// Pages that go to the host find no room there, again and again.

const requests = fc.array(
  fc.record({
    length: fc.integer({ min: 1, max: 12 }),
    maxNewTokens: fc.integer({ min: 1, max: 20 }),
    n: fc.constantFrom(1, 1, 1, 2),
    priority: fc.integer({ min: 0, max: 2 }),
  }),
  { minLength: 4, maxLength: 8, size: "max" },
);

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
    { numRuns: 200, seed: 5 },
  );
  expect(refused).toBeGreaterThan(0);
});
