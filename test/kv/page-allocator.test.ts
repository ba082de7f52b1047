import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { OutOfPages, PageAllocator } from "../../src/kv/page-allocator.ts";
import { runsOf, TIMEOUT } from "./operations.ts";

const PAGE_COUNT = 24;
const OPS_PER_RUN = 500;
const RUNS = runsOf("page-allocator", OPS_PER_RUN);

/** What the allocator should be: the free stack, the cached pages in order, and the holders of every used page. */
class Model {
  free = Array.from({ length: PAGE_COUNT - 1 }, (_, i) => PAGE_COUNT - 1 - i);
  cached: number[] = [];
  holders = new Map<number, number>();
  known = new Set<number>();
  evicted: number[] = [];

  get freeCount(): number {
    return this.free.length + this.cached.length;
  }

  allocate(n: number): number[] {
    const pages = Array.from({ length: n }, () => this.free.pop() ?? this.evict());
    for (const page of pages) this.holders.set(page, 1);
    return pages;
  }

  evict(): number {
    const page = this.cached.shift()!;
    this.known.delete(page);
    this.evicted.push(page);
    return page;
  }

  can(kind: "retain" | "release" | "claim" | "markKnown", page: number): boolean {
    return kind === "claim" ? this.known.has(page) : this.holders.has(page);
  }

  retain(page: number): void {
    this.holders.set(page, this.holders.get(page)! + 1);
  }

  claim(page: number): void {
    this.cached = this.cached.filter((other) => other !== page);
    this.holders.set(page, (this.holders.get(page) ?? 0) + 1);
  }

  markKnown(page: number): void {
    this.known.add(page);
  }

  release(page: number): void {
    const left = this.holders.get(page)! - 1;
    if (left > 0) {
      this.holders.set(page, left);
    } else {
      this.holders.delete(page);
      (this.known.has(page) ? this.cached : this.free).push(page);
    }
  }
}

function expectSame(real: PageAllocator, evicted: readonly number[], model: Model): void {
  const pages = Array.from({ length: PAGE_COUNT - 1 }, (_, i) => i + 1);
  const seen = {
    counts: pages.map((page) => real.refCount(page)).join(),
    known: pages.filter((page) => real.isKnown(page)).join(),
    free: real.freeCount,
    cached: real.cachedCount,
    used: real.usedCount,
    evicted: evicted.join(),
  };
  const wanted = {
    counts: pages.map((page) => model.holders.get(page) ?? 0).join(),
    known: pages.filter((page) => model.known.has(page)).join(),
    free: model.freeCount,
    cached: model.cached.length,
    used: model.holders.size,
    evicted: model.evicted.join(),
  };
  for (const key of Object.keys(wanted) as (keyof typeof wanted)[])
    if (seen[key] !== wanted[key]) expect(seen).toEqual(wanted);
  if (model.freeCount + model.holders.size !== real.total) expect.fail("free + held is not the total");
}

/** Numbers that are pages, and some that are not: the null page, one past the end, a fraction. */
const anyPage = fc.oneof(
  { weight: 20, arbitrary: fc.integer({ min: 1, max: PAGE_COUNT - 1 }) },
  { weight: 1, arbitrary: fc.constantFrom(-1, 0, PAGE_COUNT, 1.5, Number.NaN) },
);
const op = fc.oneof(
  fc.record({ kind: fc.constant("allocate" as const), n: fc.integer({ min: 0, max: 8 }) }),
  fc.record({
    kind: fc.constantFrom("retain" as const, "release" as const, "release" as const),
    page: anyPage,
  }),
  fc.record({ kind: fc.constantFrom("claim" as const, "markKnown" as const), page: anyPage }),
);

describe("a page allocator", () => {
  test(
    "agrees with a plain model after each of many operations, refused ones included",
    () => {
      let done = 0;
      let evictions = 0;
      fc.assert(
        fc.property(fc.array(op, { minLength: OPS_PER_RUN, maxLength: OPS_PER_RUN }), (ops) => {
          const evicted: number[] = [];
          const real = new PageAllocator(PAGE_COUNT, (page) => evicted.push(page));
          const model = new Model();
          for (const step of ops) {
            if (step.kind === "allocate") {
              if (step.n > model.freeCount) expect(() => real.allocate(step.n)).toThrow(OutOfPages);
              else expect(real.allocate(step.n).join()).toBe(model.allocate(step.n).join());
            } else if (!model.can(step.kind, step.page)) {
              expect(() => real[step.kind](step.page)).toThrow(
                /^page allocator: (retain|release|claim|markKnown|isKnown)/,
              );
            } else {
              real[step.kind](step.page);
              model[step.kind](step.page);
            }
            expectSame(real, evicted, model);
            done++;
          }
          evictions += evicted.length;
        }),
        { numRuns: RUNS, seed: 1 },
      );
      expect(done).toBe(OPS_PER_RUN * RUNS);
      expect(evictions).toBeGreaterThan(RUNS);
    },
    TIMEOUT,
  );

  test("hands out every page but the null page, once, from 1 up", () => {
    const pages = new PageAllocator(6).allocate(5);
    expect(pages).toEqual([1, 2, 3, 4, 5]);
  });

  test("hands out the page freed last first", () => {
    const allocator = new PageAllocator(6);
    allocator.allocate(4);
    allocator.release(2);
    allocator.release(4);
    expect(allocator.allocate(3)).toEqual([4, 2, 5]);
  });

  test("frees a shared page only when its last holder lets go", () => {
    const allocator = new PageAllocator(3);
    const [page] = allocator.allocate(1) as [number];
    allocator.retain(page);
    allocator.release(page);
    expect([allocator.refCount(page), allocator.freeCount]).toEqual([1, 1]);
    allocator.release(page);
    expect([allocator.refCount(page), allocator.freeCount]).toEqual([0, 2]);
  });

  test("hands out a known page only when no other is left, the one freed longest ago first, and tells", () => {
    const evicted: number[] = [];
    const allocator = new PageAllocator(6, (page) => evicted.push(page));
    allocator.allocate(4);
    for (const page of [1, 2, 3]) allocator.markKnown(page);
    for (const page of [3, 4, 1, 2]) allocator.release(page);
    expect([allocator.freeCount, allocator.cachedCount]).toEqual([5, 3]);
    expect(allocator.allocate(2)).toEqual([4, 5]);
    expect(evicted).toEqual([]);
    expect(allocator.allocate(2)).toEqual([3, 1]);
    expect(evicted).toEqual([3, 1]);
    expect([1, 2, 3].map((page) => allocator.isKnown(page))).toEqual([false, true, false]);
  });

  test("gives a known page back with its contents, and then it is the most recently used", () => {
    const allocator = new PageAllocator(4);
    allocator.allocate(3);
    for (const page of [1, 2, 3]) allocator.markKnown(page);
    for (const page of [1, 2, 3]) allocator.release(page);
    allocator.claim(1);
    allocator.claim(1);
    expect([allocator.refCount(1), allocator.freeCount]).toEqual([2, 2]);
    allocator.release(1);
    allocator.release(1);
    expect(allocator.allocate(3)).toEqual([2, 3, 1]);
  });

  test("says how many pages were wanted, free and there when it runs out, and takes none", () => {
    const allocator = new PageAllocator(5);
    allocator.allocate(1);
    let error: unknown;
    try {
      allocator.allocate(4);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(OutOfPages);
    expect(error).toMatchObject({ requested: 4, free: 3, total: 4 });
    expect((error as OutOfPages).message).toMatch(/4 wanted, 3 of 4 free/);
    expect(allocator.freeCount).toBe(3);
    expect(allocator.allocate(3)).toEqual([2, 3, 4]);
  });

  test.each([
    [(a: PageAllocator) => a.release(2), /release\(2\); the page is free.*released twice/],
    [(a: PageAllocator) => a.retain(2), /retain\(2\); the page is free/],
    [(a: PageAllocator) => a.release(0), /release\(0\); page 0 is the null page/],
    [(a: PageAllocator) => a.retain(9), /retain\(9\); this allocator has pages 1 to 3/],
    [(a: PageAllocator) => a.refCount(-1), /refCount\(-1\); this allocator has pages 1 to 3/],
    [(a: PageAllocator) => a.claim(1), /claim\(1\); nobody knows what is in this page/],
    [(a: PageAllocator) => a.markKnown(2), /markKnown\(2\); the page is free/],
    [(a: PageAllocator) => a.isKnown(4), /isKnown\(4\); this allocator has pages 1 to 3/],
    [(a: PageAllocator) => a.allocate(-1), /allocate\(-1\); the count must be an integer/],
    [(a: PageAllocator) => a.allocate(0.5), /allocate\(0.5\); the count must be an integer/],
  ])("refuses a wrong call and says why: %s", (call, message) => {
    const allocator = new PageAllocator(4);
    allocator.allocate(1);
    expect(() => call(allocator)).toThrow(message);
    expect([allocator.freeCount, allocator.refCount(1)]).toEqual([2, 1]);
  });

  test.each([1, 0, -3, 2.5, Number.NaN])("refuses to exist with %s pages", (pageCount) => {
    expect(() => new PageAllocator(pageCount)).toThrow(/pageCount is .*; it must be an integer from 2/);
  });
});
