import { afterAll, describe, expect, test } from "vitest";
import { type CapacityOptions, runCapacity } from "../../src/bench/capacity.ts";
import { layoutId, type Mix, mixRequests } from "../../src/bench/capacity-cases.ts";
import { Engine } from "../../src/generate/engine.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";
import { TINY } from "../model/tiny.ts";

const gpu = await openTestGpu();
const model = await Gpt2.load(gpu, TINY);
afterAll(() => model.free());

const OPTIONS: CapacityOptions = {
  pageSizes: [8],
  budget: { kvTokens: 72, maxSeqLen: 32, watermark: 0.01 },
  measure: "all",
  kvDtype: "f32",
  async: false,
  warmup: false,
  maxSequences: 8,
  maxBatchedTokens: 24,
  chunkedPrefill: true,
  preemption: "recompute",
  contextLength: 32,
};

const requests = (mix: Mix) =>
  new Map([
    [
      mix,
      mixRequests(mix, {
        numPrompts: 7,
        inputLen: { kind: "uniform", from: 2, to: 9 },
        outputLen: { kind: "uniform", from: 2, to: 9 },
        prefixLen: 10,
        vocabSize: model.config.vocabSize,
        maxSeqLen: 32,
        seed: 1,
      }),
    ],
  ]);

const run = (mix: Mix, options: Partial<CapacityOptions> = {}) =>
  runCapacity(model, requests(mix), { ...OPTIONS, ...options });

describe("a row on the engine", () => {
  test.each([
    ["shared-prefix", "recompute"],
    ["shared-prefix", "swap"],
    ["lognormal", "recompute"],
  ] as const)("has the steps and the memory of its simulation: %s, %s", async (mix, preemption) => {
    const { runs, error } = await run(mix, { preemption });
    expect(error).toBeUndefined();
    for (const { row } of runs) {
      const { seconds, outputTokensPerSecond, totalTokensPerSecond, ...rest } = row.measured!;
      const { meanTimeToFirstToken, meanEndToEnd, ...figures } = rest;
      expect(figures, layoutId(row)).toEqual(row.simulated);
      expect(seconds).toBeGreaterThan(0);
      expect(meanEndToEnd).toBeLessThanOrEqual(seconds);
      expect(meanTimeToFirstToken).toBeLessThan(meanEndToEnd);
      expect(outputTokensPerSecond).toBeCloseTo(figures.generatedTokens / seconds, 6);
      expect(totalTokensPerSecond).toBeGreaterThan(outputTokensPerSecond);
    }
    // Strips are never preempted; pages are, or the row would show less than it says.
    if (mix === "shared-prefix") expect(runs[2]!.row.simulated!.preemptions).toBeGreaterThan(0);
  });

  test("that runs ahead has the same tokens in some more steps, and a warm-up leaves no trace", async () => {
    const { runs } = await run("shared-prefix", { async: true, warmup: true });
    for (const { row } of runs) {
      const { measured, simulated } = row;
      expect(measured!.steps).toBeGreaterThanOrEqual(simulated!.steps);
      expect(measured!.prefixQueries).toBe(simulated!.prefixQueries);
      expect(measured!.prefixHits).toBeLessThanOrEqual(simulated!.prefixQueries);
      if (!row.prefixCache) expect(measured!.prefixHits).toBe(0);
    }
  });

  test("that fails keeps the others and its simulation, and all memory is given back", async () => {
    await expectLedgerUnchanged(gpu, async () => {
      const open = Engine.open;
      let opened = 0;
      Engine.open = (...args) => {
        if (++opened === 2) throw new Error("no room for it");
        return open.apply(Engine, args);
      };
      try {
        const { runs, error } = await run("lognormal");
        expect(error?.message).toBe("no room for it");
        expect(runs.map(({ row }) => row.error)).toEqual([undefined, "no room for it", undefined, undefined]);
        expect(runs.map(({ row }) => row.measured !== null)).toEqual([true, false, true, true]);
        expect(runs.every(({ row }) => row.simulated !== null)).toBe(true);
      } finally {
        Engine.open = open;
      }
    });
  });

  test("that is interrupted ends the experiment, and what was measured is kept", async () => {
    const controller = new AbortController();
    const reason = new Error("Ctrl-C");
    const { runs, error } = await run("lognormal", {
      signal: controller.signal,
      onRow: (_, __, note) => note === "lognormal, pages of 8: on the engine" && controller.abort(reason),
    });
    expect(error).toBe(reason);
    expect(runs.map(({ row }) => row.measured !== null)).toEqual([true, true, false, false]);
    expect(runs[2]!.row.error).toBe("Ctrl-C");
  });

  test("is run for few where that is asked: strips and the usual pages", async () => {
    const { runs } = await run("lognormal", { measure: "few", pageSizes: [8, 16] });
    expect(runs.filter(({ row }) => row.measured).map(({ row }) => layoutId(row))).toEqual([
      "strips-max",
      "strips-exact",
      "pages-16",
      "pages-16-shared",
    ]);
  });
});
