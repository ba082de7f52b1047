import fc from "fast-check";
import { expect, test } from "vitest";
import type { RequestOptions } from "../../src/generate/engine-types.ts";
import { VOCABULARY } from "./fake-gpu.ts";
import { CONTEXT, Simulation, type SimulationOptions } from "./scheduler-simulation.ts";

/**
 * Random operations of all runs. A long run:
 *   QUIRE_OPERATIONS=1000000 npx vitest run test/generate/scheduler-random
 */
const OPERATIONS = Number(process.env.QUIRE_OPERATIONS ?? 40_000);
const TIME_LIMIT_MS = Math.max(120_000, OPERATIONS);
const COMMANDS = 120;
/** Commands of a run, and the steps until all have finished: on average more than this. */
const PER_RUN = 200;

const options: fc.Arbitrary<SimulationOptions> = fc.record({
  layout: fc.oneof(
    { weight: 6, arbitrary: fc.constant("pages" as const) },
    { weight: 1, arbitrary: fc.constantFrom("strips-max" as const, "strips-exact" as const) },
  ),
  // Most are too small for all who want to run.
  pages: fc.oneof(
    { weight: 4, arbitrary: fc.integer({ min: 4, max: 16 }) },
    { weight: 1, arbitrary: fc.integer({ min: 8, max: 60 }) },
  ),
  pageSize: fc.constantFrom(8, 8, 9),
  prefixCache: fc.boolean(),
  watermark: fc.constantFrom(0, 0.01, 0.3),
  maxSequences: fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 4, max: 12 })),
  maxBatchedTokens: fc.oneof(fc.integer({ min: 1, max: 16 }), fc.integer({ min: 16, max: 80 })),
  chunkedPrefill: fc.boolean(),
  preemption: fc.constantFrom("recompute" as const, "swap" as const),
  contextLength: fc.constant(CONTEXT),
  ahead: fc.constantFrom(0, 1, 1, 2),
});

/** Prompts of one family begin alike. */
const prompt = fc
  .record({
    family: fc.integer({ min: 0, max: 2 }),
    length: fc.oneof(fc.integer({ min: 1, max: 10 }), fc.integer({ min: 1, max: 40 })),
    last: fc.integer({ min: 0, max: VOCABULARY - 1 }),
  })
  .map(({ family, length, last }) => [
    ...Array.from({ length: length - 1 }, (_, i) => (3 * i + 7 * family) % VOCABULARY),
    last,
  ]);

const request: fc.Arbitrary<RequestOptions> = fc
  .record({
    prompt,
    maxNewTokens: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 8, max: 60 })),
    width: fc.oneof(
      { weight: 3, arbitrary: fc.constant({}) },
      { weight: 1, arbitrary: fc.record({ n: fc.integer({ min: 2, max: 4 }) }) },
      { weight: 1, arbitrary: fc.record({ beams: fc.integer({ min: 2, max: 4 }) }) },
    ),
    priority: fc.constantFrom(0, 0, 0, -1, 5),
    salt: fc.constantFrom("", "", "tenant"),
    seed: fc.integer({ min: 0, max: 3 }),
    eosIds: fc.constantFrom([], [0], [0, 1]),
  })
  .map(({ width, seed, ...rest }) => ({ ...rest, ...width, sampling: { temperature: 0, seed } }));

const command = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("submit" as const), request }) },
  { weight: 12, arbitrary: fc.record({ kind: fc.constant("step" as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("abort" as const), which: fc.nat() }) },
);

test(
  "whatever comes, every request that is admitted finishes with the tokens that it has alone",
  () => {
    let operations = 0;
    const seen = {
      preemptions: 0,
      swappedPages: 0,
      recomputedTokens: 0,
      prefixHits: 0,
      surplusTokens: 0,
      copies: 0,
    };
    fc.assert(
      fc.property(
        options,
        fc.array(command, { minLength: COMMANDS, maxLength: COMMANDS, size: "max" }),
        (settings, commands) => {
          const simulation = new Simulation(settings);
          for (const step of commands) {
            if (step.kind === "submit") simulation.submit(step.request);
            else if (step.kind === "step") simulation.step();
            else {
              const all = [...simulation.submitted.keys()];
              if (all.length > 0) simulation.abort(all[step.which % all.length]!);
            }
          }
          simulation.drain();
          simulation.expectAllFinished();
          operations += simulation.operations;
          const { stats } = simulation.scheduler;
          for (const key of [
            "preemptions",
            "swappedPages",
            "recomputedTokens",
            "prefixHits",
            "surplusTokens",
          ] as const)
            seen[key] += stats[key];
          for (const { copies } of simulation.plans) seen.copies += copies.length;
        },
      ),
      { numRuns: Math.ceil(OPERATIONS / PER_RUN), seed: 4 },
    );
    expect(operations).toBeGreaterThanOrEqual(OPERATIONS);
    // What is to be tried was tried.
    for (const count of Object.values(seen)) expect(count).toBeGreaterThan(0);
  },
  TIME_LIMIT_MS,
);
