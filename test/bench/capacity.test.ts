import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { usualPageSize } from "../../src/bench/capacity.ts";
import {
  type Budget,
  heldSlots,
  layoutId,
  layoutsOf,
  mixRequests,
  refusalOf,
  spaceOf,
  usableTokens,
} from "../../src/bench/capacity-cases.ts";
import { type CapacityStep, memoryFigures, thinnedSteps } from "../../src/bench/capacity-figures.ts";
import { type SimulationOptions, simulate } from "../../src/bench/capacity-simulation.ts";
import type { WorkloadRequest } from "../../src/bench/workload.ts";
import { BadInput } from "../../src/check.ts";
import { experiment, KV_TOKENS, OPTIONS, REQUESTS } from "./capacity-fixture.ts";

const LIMITS: SimulationOptions = {
  maxSequences: 8,
  maxBatchedTokens: 64,
  chunkedPrefill: true,
  preemption: "recompute",
  contextLength: 64,
};

/** Requests with prompts of their own: [prompt, output] tokens. */
function requestsOf(...lengths: [prompt: number, output: number][]): WorkloadRequest[] {
  return lengths.map(([prompt, outputLen], i) => ({
    prompt: Array.from({ length: prompt }, (_, t) => 100 * i + t),
    outputLen,
    arrival: 0,
  }));
}

function run(
  [layout, pageSize, prefixCache]: ["strips-max" | "strips-exact" | "pages", number, boolean],
  budget: Budget,
  requests: readonly WorkloadRequest[],
  limits: Partial<SimulationOptions> = {},
) {
  const space = spaceOf({ layout, pageSize, prefixCache }, budget);
  const simulation = simulate(space, requests, { ...LIMITS, ...limits });
  const steps: CapacityStep[] = [];
  for (;;) {
    const next = simulation.next();
    if (next.done) return { steps, end: next.value, left: space.usage().reserved };
    steps.push(next.value);
  }
}

const column = (steps: readonly CapacityStep[], key: keyof CapacityStep) => steps.map((s) => s[key]);

describe("the layouts", () => {
  const budget: Budget = { kvTokens: 100, maxSeqLen: 32, watermark: 0 };

  test("are both kinds of strips, then pages by size without and with sharing", () => {
    expect(layoutsOf([8, 16]).map(layoutId)).toEqual([
      "strips-max",
      "strips-exact",
      "pages-8",
      "pages-8-shared",
      "pages-16",
      "pages-16-shared",
    ]);
    expect([usualPageSize([8, 16, 32]), usualPageSize([32, 64]), usualPageSize([])]).toEqual([
      16,
      32,
      undefined,
    ]);
  });

  test("have whole pages of the budget but one, and strips all of it and a slot for padding", () => {
    // 100 slots are 12 pages of 8 and a rest, 6 of 16, 1 of 64: the first page is nobody's.
    const usable = layoutsOf([8, 16, 64]).map((l) => usableTokens(l, budget));
    expect(usable).toEqual([100, 100, 88, 88, 80, 80, 0, 0]);
    const held = layoutsOf([8, 16]).map((l) => heldSlots(l, budget));
    expect(held).toEqual([101, 101, 96, 96, 96, 96]);
    for (const layout of layoutsOf([8, 16])) {
      const space = spaceOf(layout, budget);
      expect([space.usage().total, space.slots]).toEqual([
        usableTokens(layout, budget),
        heldSlots(layout, budget),
      ]);
    }
  });

  test("say what they cannot hold", () => {
    const refusals = layoutsOf([8, 16, 64]).map((l) => refusalOf(l, budget, 32));
    expect(refusals.slice(0, 6)).toEqual(new Array(6).fill(undefined));
    expect(refusals[6]).toBe("100 slots have no two pages of 64, and the first one is nobody's");
    expect(refusalOf(layoutsOf([32])[2]!, { ...budget, kvTokens: 64 }, 33)).toMatch(/can need 2 pages of 32/);
  });
});

describe("the mixes", () => {
  const options = {
    numPrompts: 30,
    inputLen: { kind: "lognormal", mean: 12, sigma: 1 },
    outputLen: { kind: "lognormal", mean: 9, sigma: 1 },
    prefixLen: 10,
    vocabSize: 131,
    maxSeqLen: 64,
    seed: 3,
  } as const;

  test("are within the maximum length, all there from the beginning, and the same for the same seed", () => {
    for (const mix of ["lognormal", "shared-prefix"] as const) {
      const requests = mixRequests(mix, options);
      expect(mixRequests(mix, options)).toEqual(requests);
      expect(mixRequests(mix, { ...options, seed: 4 })).not.toEqual(requests);
      expect(requests).toHaveLength(30);
      for (const { prompt, outputLen, arrival } of requests) {
        expect(prompt.length + outputLen).toBeLessThanOrEqual(64);
        expect(arrival).toBe(0);
      }
    }
  });

  test("differ in the prefix that all prompts share", () => {
    const beginnings = (mix: "lognormal" | "shared-prefix") =>
      new Set(mixRequests(mix, options).map((r) => r.prompt.slice(0, 10).join())).size;
    expect(beginnings("shared-prefix")).toBe(1);
    expect(beginnings("lognormal")).toBe(30);
  });

  test("refuse a prefix that leaves no room for a prompt and an answer", () => {
    const refused = () => mixRequests("shared-prefix", { ...options, prefixLen: 63 });
    expect(refused).toThrow(BadInput);
    expect(refused).toThrow("--prefix-len is 63; with a prompt and an answer");
    expect(mixRequests("shared-prefix", { ...options, prefixLen: 62 })[0]!.prompt).toHaveLength(63);
  });
});

describe("the simulation", () => {
  // Three requests that compute 4 tokens, then one a step: the third new token is never fed back, so 6 tokens at most.
  const three = requestsOf([4, 3], [4, 3], [4, 3]);

  test("with strips of 8 in 20 slots runs two at a time, and 4 slots are of no use", () => {
    const { steps, left } = run(
      ["strips-max", 1, false],
      { kvTokens: 20, maxSeqLen: 8, watermark: 0 },
      three,
    );
    expect(column(steps, "running")).toEqual([2, 2, 2, 1, 1, 1]);
    expect(column(steps, "waiting")).toEqual([1, 1, 1, 0, 0, 0]);
    expect(column(steps, "tokens")).toEqual([8, 2, 2, 4, 1, 1]);
    expect(column(steps, "sampled")).toEqual([2, 2, 2, 1, 1, 1]);
    expect(column(steps, "reserved")).toEqual([16, 16, 16, 8, 8, 8]);
    expect(column(steps, "used")).toEqual([8, 10, 12, 4, 5, 6]);
    expect(left).toBe(0);
    expect(memoryFigures(steps, { total: 20, budget: 20, limits: LIMITS })).toEqual({
      steps: 6,
      computedTokens: 18,
      generatedTokens: 9,
      preemptions: 0,
      peakSequences: 2,
      crowdedSteps: 3,
      meanSequences: 2,
      meanReserved: 16,
      meanUsed: 10,
      meanInternal: 6,
      meanExternal: 4,
      meanShared: 0,
      wastePercent: 37.5,
      idlePercent: 50,
    });
  });

  test("with strips of the exact length runs all three, and what it does not use yet is still reserved", () => {
    const { steps } = run(["strips-exact", 1, false], { kvTokens: 20, maxSeqLen: 8, watermark: 0 }, three);
    expect(column(steps, "running")).toEqual([3, 3, 3]);
    expect(column(steps, "reserved")).toEqual([18, 18, 18]);
    expect(column(steps, "used")).toEqual([12, 15, 18]);
    // Nobody waits: the figures are of the steps with the most sequences, and nothing is lost outside.
    expect(memoryFigures(steps, { total: 20, budget: 20, limits: LIMITS })).toMatchObject({
      crowdedSteps: 0,
      meanSequences: 3,
      meanInternal: 3,
      meanExternal: 0,
    });
  });

  test("sees a hole between strips that the next does not fit into, although there is room enough in pieces", () => {
    // Strips of 4, 8 and 4 fill 16 slots; the outer ones are done first, and in two pieces of 4 there is no room for 6.
    const requests = requestsOf([4, 1], [4, 5], [4, 1], [5, 2]);
    const { steps } = run(["strips-exact", 1, false], { kvTokens: 16, maxSeqLen: 8, watermark: 0 }, requests);
    expect(column(steps, "running")).toEqual([3, 1, 1, 1, 1, 1, 1]);
    expect(column(steps, "waiting")).toEqual([1, 1, 1, 1, 1, 0, 0]);
    expect(column(steps, "reserved")).toEqual([16, 8, 8, 8, 8, 6, 6]);
    const figures = memoryFigures(steps, { total: 16, budget: 16, limits: LIMITS });
    expect(figures).toMatchObject({ crowdedSteps: 5, meanExternal: 6.4 });
  });

  test("with pages takes the second page when the first is full, and preempts the last-come for it", () => {
    // Three pages of 8; both requests fill one, then both want a second.
    const requests = requestsOf([8, 4], [8, 4]);
    const budget = { kvTokens: 32, maxSeqLen: 16, watermark: 0 };
    const { steps, end } = run(["pages", 8, false], budget, requests);
    expect(column(steps, "reserved")).toEqual([16, 16, 16, 16, 16, 16, 16]);
    expect(column(steps, "used")).toEqual([16, 9, 10, 11, 9, 10, 11]);
    expect(column(steps, "preempted")).toEqual([0, 1, 0, 0, 0, 0, 0]);
    expect(column(steps, "running")).toEqual([2, 1, 1, 1, 1, 1, 1]);
    expect(end.recomputedTokens).toBe(8);
  });

  test("with shared pages holds a common beginning once", () => {
    const prompt = Array.from({ length: 12 }, (_, t) => t);
    const requests = [0, 1, 2].map((i) => ({ prompt: [...prompt, 50 + i], outputLen: 2, arrival: 0 }));
    const budget = { kvTokens: 64, maxSeqLen: 16, watermark: 0 };
    const { steps, end } = run(["pages", 8, true], budget, requests);
    // Each has the page of the first 8 tokens, and one of its own with 5 more.
    expect(end).toMatchObject({ prefixQueries: 39, prefixHits: 16 });
    expect(column(steps, "tokens")).toEqual([13 + 5 + 5, 3]);
    expect(column(steps, "reserved")).toEqual([32, 32]);
    expect(column(steps, "used")).toEqual([8 + 3 * 5, 8 + 3 * 6]);
    expect(column(steps, "logical")).toEqual([3 * 13, 3 * 14]);
    const figures = memoryFigures(steps, { total: 56, budget: 64, limits: LIMITS });
    expect(figures.meanShared).toBe(16);
    const plain = run(["pages", 8, false], budget, requests);
    expect(column(plain.steps, "reserved")).toEqual([48, 48]);
  });

  test("whatever the layout, every request gets its tokens, and everything is given back", () => {
    const lengths = fc.record({
      prompt: fc.integer({ min: 1, max: 40 }),
      output: fc.integer({ min: 1, max: 24 }),
    });
    const layout = fc.constantFrom(...layoutsOf([8, 16, 32]));
    fc.assert(
      fc.property(
        layout,
        fc.array(lengths, { minLength: 1, maxLength: 12 }),
        fc.constantFrom("recompute", "swap") as fc.Arbitrary<"recompute" | "swap">,
        ({ layout: kind, pageSize, prefixCache }, some, preemption) => {
          const requests = requestsOf(...some.map((l): [number, number] => [l.prompt, l.output]));
          const budget = { kvTokens: 128, maxSeqLen: 64, watermark: 0.01 };
          const { steps, left } = run([kind, pageSize, prefixCache], budget, requests, { preemption });
          expect(left).toBe(0);
          const sampled = steps.reduce((n, s) => n + s.sampled, 0);
          expect(sampled).toBe(some.reduce((n, l) => n + l.output, 0));
          for (const s of steps) {
            expect(s.used).toBeLessThanOrEqual(s.reserved);
            expect(s.reserved).toBeLessThanOrEqual(128);
            expect(s.running).toBeGreaterThan(0);
          }
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe("figures", () => {
  const step = (running: number, waiting: number, tokens = 1): CapacityStep => ({
    ...{ tokens, sampled: 1, running, waiting, preempted: 0 },
    ...{ reserved: 10 * running, used: 9 * running, logical: 9 * running },
  });

  test("count steps where the memory alone keeps requests waiting, not the limits of a step", () => {
    const steps = [step(8, 3), step(3, 3, 64), step(4, 3), step(2, 0)];
    const figures = memoryFigures(steps, { total: 80, budget: 100, limits: LIMITS });
    expect(figures).toMatchObject({ crowdedSteps: 1, meanSequences: 4, meanExternal: 40, idlePercent: 64 });
    expect(figures.wastePercent).toBe(10);
  });

  test("need a step", () => {
    expect(() => memoryFigures([], { total: 1, budget: 1, limits: LIMITS })).toThrow("no step");
  });

  test("over time are thinned to every n-th step and the last", () => {
    expect(thinnedSteps([1, 2, 3], 5)).toEqual({ every: 1, at: [0, 1, 2] });
    expect(thinnedSteps(new Array(10).fill(0), 4)).toEqual({ every: 3, at: [0, 3, 6, 9] });
    expect(thinnedSteps(new Array(9).fill(0), 4)).toEqual({ every: 3, at: [0, 3, 6, 8] });
  });
});

describe("runCapacity", () => {
  test("simulates every mix with every layout, and says which cannot hold the requests", async () => {
    const { runs, error } = await experiment();
    expect(error).toBeUndefined();
    expect(runs.map(({ row }) => `${row.mix} ${layoutId(row)}`)).toEqual(
      [...REQUESTS.keys()].flatMap((mix) => layoutsOf(OPTIONS.pageSizes).map((l) => `${mix} ${layoutId(l)}`)),
    );
    for (const { row, steps } of runs) {
      if (row.pageSize === 256) {
        expect(row.refused).toMatch(/no two pages of 256/);
        expect([row.simulated, row.timeline, steps]).toEqual([null, null, []]);
        continue;
      }
      expect(row.refused).toBeUndefined();
      expect(row.simulated!.steps).toBe(steps.length);
      expect(row.timeline!.used).toEqual(row.timeline!.step.map((i) => steps[i]!.used));
      expect(row.measured).toBeNull();
    }
  });

  test("shows what paging is for: more sequences at once in fewer steps, and less waste", async () => {
    const { runs } = await experiment();
    const of = (id: string) => runs.find(({ row }) => row.mix === "lognormal" && layoutId(row) === id)!.row;
    const [max, pages] = [of("strips-max").simulated!, of("pages-8").simulated!];
    expect(max.meanSequences).toBe(KV_TOKENS / 64);
    expect(pages.meanSequences).toBeGreaterThan(1.5 * max.meanSequences);
    expect(pages.wastePercent).toBeLessThan(max.wastePercent / 3);
    expect(pages.steps).toBeLessThan(max.steps);
  });

  test("keeps what was done when the signal is set, and gives its reason", async () => {
    const controller = new AbortController();
    const reason = new Error("Ctrl-C");
    const { runs, maps, error } = await experiment({
      signal: controller.signal,
      onRow: (done) => done === 3 && controller.abort(reason),
    });
    expect(error).toBe(reason);
    expect(runs.slice(0, 3).every(({ row }) => row.simulated !== null)).toBe(true);
    expect(runs.length).toBeLessThan(8);
    expect(runs.at(-1)!.row.error).toBe("Ctrl-C");
    expect(maps).toEqual([]);
  });

  test("draws no map of more slots than can be seen, nor where a layout has nothing beside it", async () => {
    const budget = (kvTokens: number) => ({ ...OPTIONS.budget, kvTokens });
    expect((await experiment({ budget: budget(2 ** 18 + 1) })).maps).toEqual([]);
    expect((await experiment({ budget: budget(2 ** 18), pageSizes: [256] })).maps).toHaveLength(2);
    const few = await experiment({ pageSizes: [256] });
    expect(few.maps.map((m) => m.panels.map((p) => p.title))).toEqual([
      ["strips, maximum length", "strips, exact length"],
    ]);
  });

  test("tells how far it is, up to the end", async () => {
    const told: string[] = [];
    await experiment({ onRow: (done, total, note) => told.push(`${done}/${total} ${note}`) });
    expect(told[0]).toBe("0/16 lognormal, strips, maximum length: simulated");
    expect(told.at(-1)).toBe("16/16 shared-prefix: page map");
  });
});
