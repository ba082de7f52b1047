import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BadInput } from "../../src/check.ts";
import type { Holding, PageCopy } from "../../src/kv/kv-space.ts";
import { PagedSpace, type PagedSpaceOptions } from "../../src/kv/page-space.ts";
import { runsOf, TIMEOUT } from "./operations.ts";
import { B, PAGES, SpaceWorld } from "./space-world.ts";

const MAX_HOLDINGS = 8;
const OPS_PER_RUN = 200;
const RUNS = runsOf("page-space", OPS_PER_RUN);

/** Prompts begin with a stretch of one of these; the first two have two and a half pages in common. */
const TEXT = Array.from({ length: 6 * B }, (_, i) => (i * i + (i >> 1)) % 3);
const DOCUMENTS = [TEXT, [...TEXT.slice(0, 2.5 * B), ...TEXT.map((t) => t + 1)], TEXT.map((t) => 2 - t)];

const op = fc.record({
  kind: fc.constantFrom(
    ...["admit", "admit", "grow", "grow", "grow", "one", "one", "commit", "commit"],
    ...["fork", "release", "recompute", "step"],
  ),
  which: fc.nat(MAX_HOLDINGS - 1),
  document: fc.nat(2),
  length: fc.integer({ min: 1, max: 6 * B }),
  count: fc.integer({ min: 1, max: 3 * B }),
  token: fc.nat(1),
  isOdd: fc.boolean(),
});

test(
  "a paged space keeps every invariant after each of many operations, and every sequence reads back its own text",
  () => {
    const total = { done: 0, admitted: 0, refused: 0, hits: 0, copies: 0, evicted: 0 };
    fc.assert(
      fc.property(
        fc.constantFrom(true, true, true, false),
        fc.constantFrom(0, 0.1),
        fc.constantFrom(undefined, () => 0),
        fc.array(op, { minLength: OPS_PER_RUN, maxLength: OPS_PER_RUN }),
        (prefixCache, watermark, hash, ops) => {
          const world = new SpaceWorld(prefixCache, watermark, hash);
          for (const { kind, which, document, length, count, token, isOdd } of ops) {
            const salt = which === 0 ? "tenant" : "";
            if (world.all.length >= MAX_HOLDINGS) world.release(world.all[which]!, isOdd);
            const tracked = world.all[which % Math.max(1, world.all.length)];
            if (kind === "step") world.step();
            else if (kind === "admit" || !tracked)
              world.admit(DOCUMENTS[document]!.slice(0, length), count, salt);
            else if (kind === "grow") world.grow(tracked, count, token);
            else if (kind === "one") world.grow(tracked, 1, token);
            else if (kind === "commit") world.commit(tracked, tracked.holding.length - (isOdd ? 1 : 0));
            else if (kind === "fork") world.fork(tracked);
            else {
              world.release(tracked, isOdd);
              if (kind === "recompute") world.admit([...tracked.tokens], count, tracked.salt);
            }
            world.expectInvariants();
            total.done++;
          }
          for (const tracked of [...world.all]) world.release(tracked, false);
          world.expectInvariants();
          expect(world.space.usage()).toMatchObject({ reserved: 0, used: 0, logical: 0 });
          // A text that fills all pages leaves no other to be known.
          world.admit(new Array(PAGES * B).fill(9), PAGES * B, "");
          world.release(world.all[0]!, false);
          expect(world.space.prefixCache?.prefixCount ?? 0).toBe(0);
          for (const key of ["admitted", "refused", "hits", "copies", "evicted"] as const)
            total[key] += world.counts[key];
        },
      ),
      { numRuns: RUNS, seed: 5 },
    );
    expect(total.done).toBe(OPS_PER_RUN * RUNS);
    for (const count of Object.values(total)) expect(count).toBeGreaterThan(RUNS);
  },
  TIMEOUT,
);

/** A space with pages of 8, without a watermark unless asked for. */
const spaceOf = (pages: number, options: Partial<PagedSpaceOptions> = {}): PagedSpace =>
  new PagedSpace({ pages, pageSize: B, prefixCache: true, watermark: 0, ...options });

const text = (length: number, first = 0): number[] => Array.from({ length }, (_, i) => first + i);

let owners = 0;
function admit(space: PagedSpace, tokens: readonly number[], salt?: string): Holding | undefined {
  const chunk = tokens.length;
  return space.admit({ tokens, chunk, finalLength: tokens.length, owner: owners++, salt });
}

/** Admit, compute all tokens, and tell the prefix cache. */
function compute(space: PagedSpace, tokens: readonly number[], salt?: string): Holding {
  const holding = admit(space, tokens, salt)!;
  expect(space.grow(holding, tokens.length, [])).toBe(true);
  space.commit(holding, tokens, tokens.length);
  return holding;
}

describe("sequences in a paged space", () => {
  test("with the same beginning share its full pages, and compute at least one token", () => {
    const space = spaceOf(20);
    const first = compute(space, text(20));
    const second = compute(space, [...text(18), 99]);
    expect([first.cachedTokens, second.cachedTokens]).toEqual([0, 16]);
    expect(space.slotRow(second).slice(0, 2)).toEqual(space.slotRow(first).slice(0, 2));
    expect(space.usage()).toMatchObject({ reserved: 32, used: 23, logical: 39 });
    expect(compute(space, text(16)).cachedTokens).toBe(8);
  });

  test("are found after they have ended, their heads longer than their tails", () => {
    const space = spaceOf(6);
    space.release(compute(space, text(33)));
    expect(space.usage()).toMatchObject({ free: 48, cached: 32, reserved: 0 });
    space.release(admit(space, text(24, 500))!);
    expect(space.usage().cached).toBe(24);
    expect(admit(space, text(33))!.cachedTokens).toBe(24);
  });

  test("of other tenants, and in a space without prefix cache, share nothing", () => {
    const space = spaceOf(20);
    compute(space, text(20), "one");
    expect(compute(space, text(20), "two").cachedTokens).toBe(0);
    expect(compute(space, text(20), "one").cachedTokens).toBe(16);
    const plain = spaceOf(20, { prefixCache: false });
    plain.release(compute(plain, text(20)));
    expect([compute(plain, text(20)).cachedTokens, plain.usage().cached]).toEqual([0, 0]);
  });

  test("that were forked share all until one writes: one page is copied, once", () => {
    const space = spaceOf(20);
    const parent = compute(space, text(20));
    const [a, b] = [space.fork(parent, 7), space.fork(parent, 8)];
    expect(space.usage()).toMatchObject({ reserved: 24, used: 20, logical: 60 });
    const copies: PageCopy[] = [];
    for (const holding of [a, b, parent]) expect(space.grow(holding, 21, copies)).toBe(true);
    expect(copies).toEqual([
      { from: 3, to: 4 },
      { from: 3, to: 5 },
    ]);
    expect(space.usage()).toMatchObject({ reserved: 40, used: 31, logical: 63 });
    expect(space.regions().map((region) => region.owners.length)).toEqual([
      ...[3, 3, 1, 1, 1],
      ...new Array(15).fill(0),
    ]);
  });

  test("forked at the end of a page go on in pages of their own, and nothing is copied", () => {
    const space = spaceOf(20);
    const parent = compute(space, text(16));
    const twin = space.fork(parent, 7);
    const copies: PageCopy[] = [];
    space.grow(twin, 17, copies);
    space.grow(parent, 17, copies);
    expect([copies, space.slotRow(parent), space.slotRow(twin)]).toEqual([[], [1, 2, 4], [1, 2, 3]]);
  });

  test("waste less than a page each", () => {
    const space = spaceOf(100);
    for (const length of [1, 7, 8, 9, 16, 63]) {
      const before = space.usage();
      compute(space, text(length, 1000 * length));
      const { reserved, used } = space.usage();
      expect(reserved - used - (before.reserved - before.used)).toBeLessThan(B);
    }
  });

  test("that do not fit get undefined or false, and nothing has changed", () => {
    const space = spaceOf(3);
    const holding = compute(space, text(12));
    const twin = space.fork(holding, 7);
    expect(admit(space, text(9, 500))).toBeUndefined();
    expect(space.grow(twin, 25, [])).toBe(false);
    expect([twin.length, space.usage().reserved]).toEqual([12, 16]);
    expect(space.grow(twin, 16, [])).toBe(true);
    expect([space.grow(holding, 17, []), space.grow(holding, 16, [])]).toEqual([false, true]);
  });

  test("are admitted above the watermark, unless the space is empty, and grow below it", () => {
    const space = spaceOf(10, { watermark: 0.15 });
    expect(space.watermark).toBe(2);
    const holding = admit(space, text(10 * B))!;
    expect(holding.capacity).toBe(80);
    space.release(holding);
    const small = compute(space, text(B));
    expect(admit(space, text(8 * B, 500))).toBeUndefined();
    expect(admit(space, text(7 * B, 500))).toBeDefined();
    expect(space.grow(small, 3 * B, [])).toBe(true);
  });

  test("count what the prefix cache has among the free pages only once", () => {
    const space = spaceOf(4);
    space.release(compute(space, text(25)));
    compute(space, text(1, 500));
    // Three pages are free, all cached. This one needs two of them as they are, and two others.
    expect(admit(space, [...text(16), ...text(16, 700)])).toBeUndefined();
    expect(admit(space, [...text(16), ...text(8, 700)])!.cachedTokens).toBe(16);
  });

  test("take for the first chunk what it needs, and no more", () => {
    const space = spaceOf(20);
    const holding = space.admit({ tokens: text(60), chunk: 10, finalLength: 70, owner: 1 })!;
    expect([holding.capacity, holding.length, holding.owner]).toEqual([16, 0, 1]);
  });
});

describe("a paged space", () => {
  test("has a null page beside those that sequences can have", () => {
    const space = spaceOf(5);
    expect([space.kind, space.pageSize, space.slots, space.usage().total]).toEqual(["pages", 8, 48, 40]);
    expect(space.slotRow(compute(space, text(40)))).toEqual([1, 2, 3, 4, 5]);
    expect(space.regions()[0]).toMatchObject({ slot: 8, slots: 8, used: 8, isCached: false });
  });

  test("says what could never fit, as if nothing were shared", () => {
    const space = spaceOf(10);
    expect([space.refusal(1, 80), space.refusal(5, 16)]).toEqual([undefined, undefined]);
    expect(space.refusal(1, 81)).toMatch(
      /^a sequence of up to 81 tokens can need 11 pages of 8 slots, and there are 10/,
    );
    expect(space.refusal(4, 17)).toMatch(/^4 sequences of up to 17 tokens can need 12 pages/);
  });

  test("refuses wrong calls and says why", () => {
    const space = spaceOf(10);
    const holding = compute(space, text(10));
    expect(() => space.commit(holding, text(20), 11)).toThrow("11 tokens to commit; the holding has 10");
    expect(() => space.commit(holding, text(5), 8)).toThrow("of which 5 are known");
    expect(() => space.grow(holding, 9, [])).toThrow("a holding of 10 tokens cannot grow to 9");
    expect(() => admit(space, [])).toThrow("admission of 0 tokens");
    expect(() => spaceOf(10).slotRow(holding)).toThrow("is another space's");
    space.release(holding);
    expect(() => space.release(holding)).toThrow("this holding was released");
    expect(() => spaceOf(10, { watermark: 1 })).toThrow("watermark is 1");
    expect(() => spaceOf(10, { pageSize: 4 })).toThrow(BadInput);
  });
});
