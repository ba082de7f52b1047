import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { OutOfPages, PageAllocator } from "../../src/kv/page-allocator.ts";

const PAGE_COUNT = 24;
const OPS_PER_RUN = 500;
const RUNS = 100;

/** What the allocator should be: the free stack and the holders of every used page, written down plainly. */
class Model {
  free = Array.from({ length: PAGE_COUNT - 1 }, (_, i) => PAGE_COUNT - 1 - i);
  holders = new Map<number, number>();

  allocate(n: number): number[] {
    const pages = Array.from({ length: n }, () => this.free.pop()!);
    for (const page of pages) this.holders.set(page, 1);
    return pages;
  }

  release(page: number): void {
    const left = this.holders.get(page)! - 1;
    if (left > 0) {
      this.holders.set(page, left);
    } else {
      this.holders.delete(page);
      this.free.push(page);
    }
  }
}

function expectSame(real: PageAllocator, model: Model): void {
  const counts = Array.from({ length: PAGE_COUNT - 1 }, (_, i) => real.refCount(i + 1));
  const wanted = Array.from({ length: PAGE_COUNT - 1 }, (_, i) => model.holders.get(i + 1) ?? 0);
  if (counts.join() !== wanted.join()) expect(counts).toEqual(wanted);
  if (real.freeCount !== model.free.length) expect(real.freeCount).toBe(model.free.length);
  if (real.usedCount !== model.holders.size) expect(real.usedCount).toBe(model.holders.size);
  if (real.freeCount + real.usedCount !== real.total)
    expect(real.usedCount).toBe(real.total - real.freeCount);
}

/** Numbers that are pages, and some that are not: the null page, one past the end, a fraction. */
const anyPage = fc.oneof(
  { weight: 20, arbitrary: fc.integer({ min: 1, max: PAGE_COUNT - 1 }) },
  { weight: 1, arbitrary: fc.constantFrom(-1, 0, PAGE_COUNT, 1.5, Number.NaN) },
);
const op = fc.oneof(
  fc.record({ kind: fc.constant("allocate" as const), n: fc.integer({ min: 0, max: 8 }) }),
  fc.record({ kind: fc.constantFrom("retain" as const, "release" as const), page: anyPage }),
);

describe("a page allocator", () => {
  test("agrees with a plain model after each of 50,000 operations, refused ones included", () => {
    let done = 0;
    fc.assert(
      fc.property(fc.array(op, { minLength: OPS_PER_RUN, maxLength: OPS_PER_RUN }), (ops) => {
        const real = new PageAllocator(PAGE_COUNT);
        const model = new Model();
        for (const step of ops) {
          if (step.kind === "allocate") {
            if (step.n > model.free.length) expect(() => real.allocate(step.n)).toThrow(OutOfPages);
            else expect(real.allocate(step.n)).toEqual(model.allocate(step.n));
          } else if (!model.holders.has(step.page)) {
            expect(() => real[step.kind](step.page)).toThrow(/^page allocator: (retain|release)/);
          } else {
            real[step.kind](step.page);
            if (step.kind === "release") model.release(step.page);
            else model.holders.set(step.page, model.holders.get(step.page)! + 1);
          }
          expectSame(real, model);
          done++;
        }
      }),
      { numRuns: RUNS, seed: 1 },
    );
    expect(done).toBe(OPS_PER_RUN * RUNS);
  });

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
