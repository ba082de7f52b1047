import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Holding } from "../../src/kv/kv-space.ts";
import { StripSpace } from "../../src/kv/strip-space.ts";
import { runsOf, TIMEOUT } from "./operations.ts";

const SLOTS = 60;
const MAX_LENGTH = 16;
const OPS_PER_RUN = 200;
const RUNS = runsOf("strip-space", OPS_PER_RUN);

let owners = 0;
/** A sequence with a prompt of one token. */
const admit = (space: StripSpace, finalLength: number): Holding | undefined =>
  space.admit({ tokens: [1], chunk: 1, finalLength, owner: owners++ });

/** A strip that the test believes in: slots and how many of them have tokens. */
interface Tracked {
  holding: Holding;
  start: number;
  size: number;
  length: number;
}

/** Owner of each slot, slot 0 included; undefined is free. */
function slotsOf(strips: readonly Tracked[]): (Tracked | undefined)[] {
  const slots: (Tracked | undefined)[] = new Array(SLOTS + 1).fill(undefined);
  for (const strip of strips) {
    for (let slot = strip.start; slot < strip.start + strip.size; slot++) {
      if (slot < 1 || slot > SLOTS || slots[slot] !== undefined) expect.fail(`slot ${slot} is not to be had`);
      slots[slot] = strip;
    }
  }
  return slots;
}

/** First slot of the first stretch of `size` free slots. */
function firstFit(slots: readonly (Tracked | undefined)[], size: number): number | undefined {
  for (let start = 1; start + size <= slots.length; start++)
    if (slots.slice(start, start + size).every((slot) => slot === undefined)) return start;
  return undefined;
}

function expectSame(space: StripSpace, strips: readonly Tracked[]): void {
  const slots = slotsOf(strips);
  const holes: [number, number][] = [];
  for (let slot = 1; slot <= SLOTS; slot++) {
    if (slots[slot] !== undefined) continue;
    if (slot > 1 && slots[slot - 1] === undefined) holes.at(-1)![1]++;
    else holes.push([slot, 1]);
  }
  const regions = [
    ...strips.map(({ start, size, length, holding }) => [start, size, length, holding.owner]),
    ...holes.map(([start, size]) => [start, size, 0, -1]),
  ].sort((a, b) => a[0]! - b[0]!);
  const seen = space.regions().map((r) => [r.slot, r.slots, r.used, r.owners[0] ?? -1]);
  if (seen.join() !== regions.join()) expect(seen).toEqual(regions);
  const free = slots.slice(1).filter((slot) => slot === undefined).length;
  const used = strips.reduce((sum, { length }) => sum + length, 0);
  const usage = {
    total: SLOTS,
    reserved: SLOTS - free,
    used,
    logical: used,
    free,
    largestFree: Math.max(0, ...holes.map(([, size]) => size)),
    cached: 0,
  };
  if (JSON.stringify(space.usage()) !== JSON.stringify(usage)) expect(space.usage()).toEqual(usage);
}

const op = fc.record({
  kind: fc.constantFrom("admit", "admit", "grow", "release"),
  which: fc.nat(20),
  length: fc.integer({ min: 1, max: MAX_LENGTH }),
});

describe("strips", () => {
  test.each(["max", "exact"] as const)(
    "%s: take the first hole that is large enough, never overlap and merge when free",
    (policy) => {
      const total = { done: 0, refused: 0 };
      const runs = Math.ceil(RUNS / 2);
      fc.assert(
        fc.property(fc.array(op, { minLength: OPS_PER_RUN, maxLength: OPS_PER_RUN }), (ops) => {
          const space = new StripSpace({ slots: SLOTS, policy, maxLength: MAX_LENGTH });
          const strips: Tracked[] = [];
          for (const { kind, which, length } of ops) {
            const strip = strips[which % Math.max(1, strips.length)];
            if (kind === "admit") {
              const size = policy === "max" ? MAX_LENGTH : length;
              const start = firstFit(slotsOf(strips), size);
              const holding = admit(space, length);
              if (start === undefined) {
                if (holding) expect.fail("a strip was made where there is no room");
                total.refused++;
              } else {
                if (!holding) expect.fail("no strip was made where there is room");
                expect([space.slotRow(holding)[0], holding.capacity, holding.length]).toEqual([
                  start,
                  size,
                  0,
                ]);
                strips.push({ holding, start, size, length: 0 });
              }
            } else if (strip && kind === "grow") {
              strip.length = Math.max(strip.length, Math.min(length, strip.size));
              expect(space.grow(strip.holding, strip.length)).toBe(true);
            } else if (strip) {
              space.release(strip.holding);
              strips.splice(strips.indexOf(strip), 1);
            }
            expectSame(space, strips);
            total.done++;
          }
          for (const { holding } of strips) space.release(holding);
          expect(space.regions()).toEqual([{ slot: 1, slots: SLOTS, used: 0, owners: [], isCached: false }]);
        }),
        { numRuns: runs, seed: 4 },
      );
      expect(total.done).toBe(OPS_PER_RUN * runs);
      expect(total.refused).toBeGreaterThan(runs);
    },
    TIMEOUT,
  );

  test("of exact length leave holes that are free and of no use to a longer sequence", () => {
    const space = new StripSpace({ slots: 30, policy: "exact", maxLength: 20 });
    const [a, b] = [admit(space, 10)!, admit(space, 10)!];
    admit(space, 5);
    space.release(a);
    expect(space.usage()).toMatchObject({ free: 15, largestFree: 10 });
    expect(admit(space, 12)).toBeUndefined();
    space.release(b);
    expect(space.usage()).toMatchObject({ free: 25, largestFree: 20 });
    expect(space.slotRow(admit(space, 12)!)).toEqual([1]);
  });

  test("of the maximum length waste what their sequences do not need", () => {
    const space = new StripSpace({ slots: 64, policy: "max", maxLength: 16 });
    const holding = admit(space, 3)!;
    space.grow(holding, 3);
    expect(space.usage()).toMatchObject({ reserved: 16, used: 3, free: 48 });
    expect([space.slots, space.pageSize, space.watermark, holding.cachedTokens]).toEqual([65, 1, 0, 0]);
  });

  test("refuse what can never fit, with the reason", () => {
    const max = new StripSpace({ slots: 10, policy: "max", maxLength: 16 });
    const exact = new StripSpace({ slots: 10, policy: "exact", maxLength: 16 });
    expect(exact.refusal(1, 10)).toBeUndefined();
    expect(exact.refusal(1, 11)).toMatch(/a strip of 11 slots does not fit into 10/);
    expect(exact.refusal(1, 17)).toMatch(/up to 17 tokens does not fit its strip of 16 slots/);
    expect(max.refusal(1, 1)).toMatch(/a strip of 16 slots does not fit into 10/);
    expect(exact.refusal(2, 1)).toMatch(/2 sequences of one prompt share pages, and strips cannot be shared/);
  });

  test("refuse wrong calls and say why", () => {
    const space = new StripSpace({ slots: 20, policy: "exact", maxLength: 16 });
    const holding = admit(space, 4)!;
    expect(() => space.fork()).toThrow("a strip cannot be shared, so it cannot be forked");
    expect(() => space.grow(holding, 5)).toThrow("a strip of 4 slots with 0 tokens cannot grow to 5");
    expect(() => admit(space, 17)).toThrow("1 tokens that will be 17 do not fit a strip of 16");
    space.release(holding);
    expect(() => space.release(holding)).toThrow("this strip was released");
    expect(() => space.commit(holding)).toThrow("this strip was released");
    expect(() => new StripSpace({ slots: 0, policy: "max", maxLength: 1 })).toThrow("0 slots");
  });
});
