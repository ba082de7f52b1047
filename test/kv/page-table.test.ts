import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BadInput } from "../../src/check.ts";
import type { PageCopy } from "../../src/kv/kv-space.ts";
import { OutOfPages, PageAllocator } from "../../src/kv/page-allocator.ts";
import { DEFAULT_PAGE_SIZE, PageTable, validatePageSize } from "../../src/kv/page-table.ts";
import { runsOf, TIMEOUT } from "./operations.ts";

const PAGE_COUNT = 40;
const MAX_TABLES = 8;
const OPS_PER_RUN = 500;
const RUNS = runsOf("page-table", OPS_PER_RUN);

/** A table and what is known of it: a number for each of its tokens, no two alike unless forked, and its pages at the last look. */
interface Tracked {
  table: PageTable;
  tokens: number[];
  pages: number[];
}

const op = fc.record({
  kind: fc.constantFrom("append", "append", "append", "reserve", "fork", "release", "create"),
  which: fc.nat(MAX_TABLES - 1),
  tokens: fc.oneof(fc.nat(3), fc.nat(40)),
});

/** An allocator, the tables on it, and what the slots of its pages contain. */
class World {
  readonly pageSize: number;
  readonly allocator = new PageAllocator(PAGE_COUNT);
  readonly all: Tracked[] = [];
  readonly contents: Int32Array;
  written = 0;
  copies = 0;
  refused = 0;

  constructor(pageSize: number) {
    this.pageSize = pageSize;
    this.contents = new Int32Array(PAGE_COUNT * pageSize).fill(-1);
    this.create();
  }

  create(): void {
    this.all.push({ table: new PageTable(this.allocator, this.pageSize), tokens: [], pages: [] });
  }

  fork({ table, tokens }: Tracked): void {
    const free = this.allocator.freeCount;
    const twin = table.fork();
    expect(this.allocator.freeCount).toBe(free);
    expect(twin.pages).toEqual(table.pages.slice(0, Math.ceil(tokens.length / this.pageSize)));
    this.all.push({ table: twin, tokens: [...tokens], pages: [...twin.pages] });
  }

  grow(tracked: Tracked, kind: "append" | "reserve", count: number): void {
    const { table, tokens } = tracked;
    const { pageSize, allocator } = this;
    const filled = tokens.length % pageSize;
    const tail = Math.floor(tokens.length / pageSize);
    const shared = count > 0 && filled > 0 && allocator.refCount(table.pages[tail]!) > 1;
    const missing = Math.max(0, Math.ceil((tokens.length + count) / pageSize) - table.pages.length);
    const copies: PageCopy[] = [];
    if (missing + (shared ? 1 : 0) > allocator.freeCount) {
      expect(() => table[kind](count, copies)).toThrow(OutOfPages);
      expect([...table.pages, copies.length]).toEqual([...tracked.pages, 0]);
      this.refused++;
      return;
    }
    const from = table.pages[tail];
    table[kind](count, copies);
    if (shared) expect(copies).toEqual([{ from, to: table.pages[tail] }]);
    else expect(copies.length).toBe(0);
    for (const copy of copies) {
      const at = copy.from * pageSize;
      this.contents.copyWithin(copy.to * pageSize, at, at + pageSize);
      tracked.pages[tail] = copy.to;
      this.copies++;
    }
    if (table.capacity < tokens.length + count) expect.fail("too few slots");
    if (kind === "append") {
      for (const slot of table.slots(tokens.length, tokens.length + count)) {
        this.contents[slot] = this.written;
        tokens.push(this.written++);
      }
    }
  }

  /** Everything that must hold between an allocator and all the tables on it. */
  expectInvariants(): void {
    const { allocator, pageSize } = this;
    const holders = new Map<number, number>();
    for (const tracked of this.all) {
      const { table, tokens, pages } = tracked;
      if (table.length !== tokens.length) expect(table.length).toBe(tokens.length);
      if (table.capacity !== table.pages.length * pageSize || table.capacity < tokens.length)
        expect(table.capacity).toBe(table.pages.length * pageSize);
      // Append-only but for copies: the pages known before are still where they were.
      if (pages.some((page, i) => table.pages[i] !== page))
        expect(table.pages.slice(0, pages.length)).toEqual(pages);
      if (new Set(table.pages).size !== table.pages.length) expect.fail("a page is twice in one table");
      for (const page of table.pages) holders.set(page, (holders.get(page) ?? 0) + 1);
      tracked.pages = [...table.pages];
      const wrong = tokens.findIndex((token, p) => this.contents[table.slotOf(p)] !== token);
      if (wrong >= 0) expect.fail(`position ${wrong} does not read back what was written there`);
    }
    if (holders.has(0)) expect.fail("the null page was handed out");
    for (let page = 1; page < PAGE_COUNT; page++) {
      const count = allocator.refCount(page);
      if (count !== (holders.get(page) ?? 0))
        expect(`page ${page}: ${count}`).toBe(`page ${page}: ${holders.get(page)}`);
    }
    if (allocator.freeCount + holders.size !== PAGE_COUNT - 1) expect.fail("free + used is not the total");
  }
}

describe("page tables on one allocator", () => {
  test(
    "keep every invariant after each of many operations, and read back what each of them wrote",
    () => {
      const total = { done: 0, refused: 0, copies: 0 };
      fc.assert(
        fc.property(
          fc.constantFrom(8, 13, 16),
          fc.array(op, { minLength: OPS_PER_RUN, maxLength: OPS_PER_RUN }),
          (pageSize, ops) => {
            const world = new World(pageSize);
            const { all, allocator } = world;
            for (const { kind, which, tokens } of ops) {
              const tracked = all[which % all.length]!;
              if (kind === "append" || kind === "reserve") {
                world.grow(tracked, kind, tokens);
              } else if (kind === "release") {
                tracked.table.release();
                Object.assign(tracked, { tokens: [], pages: [] });
              } else if (all.length < MAX_TABLES) {
                if (kind === "fork") world.fork(tracked);
                else world.create();
              } else if (kind === "fork") {
                // Room for a fork: another table ends.
                const other = all.findIndex((each) => each !== tracked);
                all.splice(other, 1)[0]!.table.release();
                world.fork(tracked);
              }
              world.expectInvariants();
              total.done++;
            }
            total.refused += world.refused;
            total.copies += world.copies;
            for (const { table } of all) table.release();
            expect(allocator.usedCount).toBe(0);
          },
        ),
        { numRuns: RUNS, seed: 2 },
      );
      expect(total.done).toBe(OPS_PER_RUN * RUNS);
      expect(total.refused).toBeGreaterThan(RUNS);
      expect(total.copies).toBeGreaterThan(RUNS);
    },
    TIMEOUT,
  );

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

  test("share all their pages on fork; the first that writes into the partly filled one gets a copy", () => {
    const allocator = new PageAllocator(10);
    const parent = new PageTable(allocator, 16);
    parent.append(40);
    const child = parent.fork();
    expect([child.length, child.pages]).toEqual([40, parent.pages]);
    expect(parent.pages.map((page) => allocator.refCount(page))).toEqual([2, 2, 2]);
    const copies: PageCopy[] = [];
    child.append(1, copies);
    expect(child.pages).toEqual([1, 2, 4]);
    expect(copies).toEqual([{ from: 3, to: 4 }]);
    parent.append(1, copies);
    expect(parent.pages).toEqual([1, 2, 3]);
    expect(copies.length).toBe(1);
  });

  test("copy nothing when the last page is full, when the other holder has let go, or when nothing is written", () => {
    const allocator = new PageAllocator(10);
    const parent = new PageTable(allocator, 8);
    const copies: PageCopy[] = [];
    parent.append(16);
    const child = parent.fork();
    child.append(1, copies);
    parent.append(1, copies);
    expect([parent.pages, child.pages]).toEqual([
      [1, 2, 4],
      [1, 2, 3],
    ]);
    const twin = child.fork();
    twin.append(0, copies);
    child.release();
    twin.append(1, copies);
    expect(twin.pages).toEqual([1, 2, 3]);
    expect(copies).toEqual([]);
  });

  test("do not share pages that were reserved ahead", () => {
    const allocator = new PageAllocator(10);
    const parent = new PageTable(allocator, 8);
    parent.append(3);
    parent.reserve(20);
    const child = parent.fork();
    expect([child.capacity, parent.capacity]).toEqual([8, 24]);
    expect(parent.pages.map((page) => allocator.refCount(page))).toEqual([2, 1, 1]);
  });

  test("refuse to write into a shared page where nobody would make the copy, and change nothing", () => {
    const parent = new PageTable(new PageAllocator(4), 8);
    parent.append(3);
    const child = parent.fork();
    expect(() => child.append(1)).toThrow("the last page is shared; give a list that its copy can go to");
    expect([child.length, child.pages]).toEqual([3, [1]]);
    expect([parent.pagesFor(1), parent.pagesFor(6), parent.pagesFor(0)]).toEqual([1, 2, 0]);
    parent.release();
    expect(child.pagesFor(1)).toBe(0);
  });

  test("drop a copy whose page has been handed out again for another one", () => {
    const allocator = new PageAllocator(5);
    const copies: PageCopy[] = [];
    const forkOf = (table: PageTable) => {
      const twin = table.fork();
      twin.append(1, copies);
      return twin;
    };
    const [a, b] = [new PageTable(allocator, 8), new PageTable(allocator, 8)];
    a.append(1);
    b.append(1);
    const a2 = forkOf(a);
    expect(copies).toEqual([{ from: 1, to: 3 }]);
    // a and its fork lose their pages in the same step: page 1, and then 3, are there for a fork of b.
    a2.release();
    const b2 = forkOf(b);
    expect(copies).toEqual([{ from: 2, to: 3 }]);
    a.release();
    b2.release();
    const b3 = b.fork();
    allocator.allocate(1);
    b3.append(1, copies);
    expect(copies).toEqual([
      { from: 2, to: 3 },
      { from: 2, to: 1 },
    ]);
  });

  test("begin with known pages, held once more, and go on in pages of their own", () => {
    const allocator = new PageAllocator(6);
    const first = new PageTable(allocator, 8);
    first.append(20);
    for (const page of [1, 2]) allocator.markKnown(page);
    const second = new PageTable(allocator, 8);
    second.claim([1, 2]);
    expect([second.length, second.pages]).toEqual([16, [1, 2]]);
    second.append(4);
    expect(second.pages).toEqual([1, 2, 4]);
    expect([1, 2, 3, 4].map((page) => allocator.refCount(page))).toEqual([2, 2, 1, 1]);
    expect(() => second.claim([1])).toThrow("only an empty table can begin with known pages");
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
