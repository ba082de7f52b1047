import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BadInput } from "../../src/check.ts";
import { OutOfPages, PageAllocator } from "../../src/kv/page-allocator.ts";
import { DEFAULT_PAGE_SIZE, PageTable, validatePageSize } from "../../src/kv/page-table.ts";

const PAGE_COUNT = 40;
const MAX_TABLES = 8;
const OPS_PER_RUN = 1000;
const RUNS = 100;

/** A table and what is known of it: its length and the page list at the last look. */
interface Tracked {
  table: PageTable;
  length: number;
  pages: number[];
}

const op = fc.record({
  kind: fc.constantFrom("append", "append", "append", "reserve", "fork", "release", "create"),
  which: fc.nat(MAX_TABLES - 1),
  tokens: fc.nat(60),
});

/** Everything that must hold between an allocator and all the tables on it. */
function expectInvariants(allocator: PageAllocator, all: readonly Tracked[], pageSize: number): void {
  const holders = new Map<number, number>();
  for (const { table, length, pages } of all) {
    if (table.length !== length) expect(table.length).toBe(length);
    if (table.capacity !== table.pages.length * pageSize || table.capacity < length) {
      expect(table.capacity).toBe(table.pages.length * pageSize);
      expect(table.capacity).toBeGreaterThanOrEqual(length);
    }
    // Append-only: the pages known before are still where they were.
    for (let i = 0; i < pages.length; i++) {
      if (table.pages[i] !== pages[i]) expect(table.pages.slice(0, pages.length)).toEqual(pages);
    }
    if (new Set(table.pages).size !== table.pages.length) expect.fail("a page is twice in one table");
    for (const page of table.pages) holders.set(page, (holders.get(page) ?? 0) + 1);
  }
  if (holders.has(0)) expect.fail("the null page was handed out");
  for (let page = 1; page < PAGE_COUNT; page++) {
    const count = allocator.refCount(page);
    if (count !== (holders.get(page) ?? 0))
      expect(`page ${page}: ${count}`).toBe(`page ${page}: ${holders.get(page)}`);
  }
  if (allocator.usedCount !== holders.size) expect(allocator.usedCount).toBe(holders.size);
  if (allocator.freeCount + holders.size !== PAGE_COUNT - 1) expect.fail("free + used is not the total");
}

/** Returns whether it had to be refused. */
function grow(
  tracked: Tracked,
  kind: "append" | "reserve",
  tokens: number,
  free: number,
  pageSize: number,
): boolean {
  const { table, length } = tracked;
  const wanted = Math.max(0, Math.ceil((length + tokens) / pageSize) - table.pages.length);
  if (wanted > free) {
    const before = [...table.pages];
    expect(() => table[kind](tokens)).toThrow(OutOfPages);
    expect(table.pages).toEqual(before);
    return true;
  }
  table[kind](tokens);
  if (kind === "append") tracked.length += tokens;
  if (table.capacity < length + tokens) expect(table.capacity).toBeGreaterThanOrEqual(length + tokens);
  tracked.pages = [...table.pages];
  return false;
}

/** No slot that a table may still append to belongs to another table: writing it disturbs nobody. */
function expectPrivateTail(allocator: PageAllocator, { table, length }: Tracked, pageSize: number): void {
  for (let i = Math.floor(length / pageSize); i < table.pages.length; i++) {
    if (allocator.refCount(table.pages[i]!) !== 1) expect.fail("two tables would write one page");
  }
}

describe("page tables on one allocator", () => {
  test("keep every invariant after each of 100,000 operations", () => {
    let done = 0;
    let refused = 0;
    fc.assert(
      fc.property(
        fc.constantFrom(8, 13, 16),
        fc.array(op, { minLength: OPS_PER_RUN, maxLength: OPS_PER_RUN }),
        (pageSize, ops) => {
          const allocator = new PageAllocator(PAGE_COUNT);
          const create = (): Tracked => ({ table: new PageTable(allocator, pageSize), length: 0, pages: [] });
          const all: Tracked[] = [create()];
          for (const { kind, which, tokens } of ops) {
            const tracked = all[which % all.length]!;
            const freeBefore = allocator.freeCount;
            if (kind === "append" || kind === "reserve") {
              if (grow(tracked, kind, tokens, freeBefore, pageSize)) refused++;
            } else if (kind === "fork" && all.length < MAX_TABLES) {
              const table = tracked.table.fork();
              const length = Math.floor(tracked.length / pageSize) * pageSize;
              expect(table.pages).toEqual(tracked.table.pages.slice(0, length / pageSize));
              expect(allocator.freeCount).toBe(freeBefore);
              all.push({ table, length, pages: [...table.pages] });
            } else if (kind === "release") {
              tracked.table.release();
              Object.assign(tracked, { length: 0, pages: [] });
            } else if (all.length < MAX_TABLES) {
              all.push(create());
            }
            expectInvariants(allocator, all, pageSize);
            for (const each of all) expectPrivateTail(allocator, each, pageSize);
            done++;
          }
          for (const { table } of all) table.release();
          expect(allocator.usedCount).toBe(0);
        },
      ),
      { numRuns: RUNS, seed: 2 },
    );
    expect(done).toBe(OPS_PER_RUN * RUNS);
    expect(refused).toBeGreaterThan(1000);
  });

  test("give every token its own slot, and the slot is page · B + offset", () => {
    const allocator = new PageAllocator(20);
    const [a, b] = [new PageTable(allocator, 8), new PageTable(allocator, 8)];
    for (let i = 0; i < 30; i++) {
      a.append(1);
      b.append(2);
    }
    for (const table of [a, b]) {
      for (let p = 0; p < table.length; p++) {
        expect(table.slotOf(p)).toBe(table.pages[Math.floor(p / 8)]! * 8 + (p % 8));
      }
    }
    const slots = [...a.slots(0, 30), ...b.slots(0, 60)];
    expect(new Set(slots).size).toBe(90);
    expect(Math.min(...slots)).toBeGreaterThanOrEqual(8);
    expect(a.slots(5, 9)).toEqual(Uint32Array.from([5, 6, 7, 8].map((p) => a.slotOf(p))));
  });

  test("report reserved, used and wasted tokens", () => {
    const table = new PageTable(new PageAllocator(10));
    expect(table.pageSize).toBe(DEFAULT_PAGE_SIZE);
    expect([table.reservedTokens, table.usedTokens, table.wastedTokens]).toEqual([0, 0, 0]);
    table.append(17);
    expect([table.reservedTokens, table.usedTokens, table.wastedTokens]).toEqual([32, 17, 15]);
    table.append(15);
    expect([table.reservedTokens, table.usedTokens, table.wastedTokens]).toEqual([32, 32, 0]);
  });

  test("take no page for what is reserved already, and give reserved positions their slots", () => {
    const allocator = new PageAllocator(10);
    const table = new PageTable(allocator, 16);
    table.reserve(40);
    const promised = table.slots(0, 48);
    expect([table.length, table.capacity, allocator.usedCount]).toEqual([0, 48, 3]);
    table.append(40);
    table.reserve(8);
    expect(allocator.usedCount).toBe(3);
    expect(table.slots(0, 48)).toEqual(promised);
  });

  test("share full pages on fork, and not the partly filled last one", () => {
    const allocator = new PageAllocator(10);
    const parent = new PageTable(allocator, 16);
    parent.append(40);
    const child = parent.fork();
    expect([child.length, child.capacity]).toEqual([32, 32]);
    expect(parent.pages.map((page) => allocator.refCount(page))).toEqual([2, 2, 1]);
    child.append(8);
    expect(child.slotOf(31)).toBe(parent.slotOf(31));
    expect(child.slotOf(32)).not.toBe(parent.slotOf(32));
    parent.release();
    expect(child.pages.map((page) => allocator.refCount(page))).toEqual([1, 1, 1]);
  });

  test("are empty after release, and give the next table the same pages in the same order", () => {
    const allocator = new PageAllocator(10);
    const table = new PageTable(allocator, 8);
    table.append(30);
    const pages = [...table.pages];
    table.release();
    table.release();
    expect([table.length, table.capacity, allocator.usedCount]).toEqual([0, 0, 0]);
    const next = new PageTable(allocator, 8);
    next.append(30);
    expect(next.pages).toEqual(pages);
  });
});

describe("wrong calls of a page table", () => {
  test.each([8, 9, 16, 255, 256])("a page of %i slots is allowed", (pageSize) => {
    expect(() => validatePageSize(pageSize)).not.toThrow();
    expect(new PageTable(new PageAllocator(2), pageSize).pageSize).toBe(pageSize);
  });

  test.each([7, 257, 0, -16, 16.5, Number.NaN])("a page of %s slots is refused", (pageSize) => {
    expect(() => validatePageSize(pageSize)).toThrow(BadInput);
    expect(() => new PageTable(new PageAllocator(2), pageSize)).toThrow(
      `page size is ${pageSize}; it must be an integer from 8 to 256 tokens`,
    );
  });

  test("name the position that has no slot, and the count that is none", () => {
    const table = new PageTable(new PageAllocator(5), 8);
    table.append(3);
    expect(() => table.slotOf(8)).toThrow("position 8 has no slot; the table holds pages for 8 tokens");
    expect(() => table.slotOf(-1)).toThrow("position -1 has no slot");
    expect(() => table.slotOf(0.5)).toThrow("position 0.5 has no slot");
    expect(() => table.slots(4, 9)).toThrow("no slots for positions 4 to 9");
    expect(() => table.slots(4, 3)).toThrow("no slots for positions 4 to 3");
    expect(() => table.append(-1)).toThrow("-1 tokens to hold; the count must be an integer of at least 0");
    expect(() => table.reserve(1.5)).toThrow("1.5 tokens to hold");
    expect(table.length).toBe(3);
  });
});
