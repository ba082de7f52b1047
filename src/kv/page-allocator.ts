import { check } from "../check.ts";

/** The page that padding points at: writes of padded tokens land in its slots and nobody reads them. */
export const NULL_PAGE = 0;

/** Thrown by `allocate` when fewer pages are free than wanted. Nothing was allocated. Counts are pages. */
export class OutOfPages extends Error {
  override name = "OutOfPages";
  readonly requested: number;
  readonly free: number;
  readonly total: number;

  constructor(requested: number, free: number, total: number) {
    super(
      `the KV cache is out of pages: ${requested} wanted, ${free} of ${total} free; ` +
        "give the cache more pages, or run fewer or shorter sequences",
    );
    this.requested = requested;
    this.free = free;
    this.total = total;
  }
}

/**
 * Hands out the pages of a KV cache and counts who holds them. It knows page numbers only, no memory.
 *
 * Pages 1 to pageCount - 1 are usable; page 0 is the null page and is never handed out. Taking and giving back a
 * page is O(1). The order is deterministic: the page freed last is handed out first (a stack), and a new allocator
 * hands out 1, 2, 3, …
 */
export class PageAllocator {
  /** Usable pages, without the null page. */
  readonly total: number;
  /** Free pages; the top of the stack, at #freeCount - 1, goes out next. */
  readonly #stack: Uint32Array;
  #freeCount: number;
  /** Holders of each page [pageCount]; 0 means free. */
  readonly #holders: Uint32Array;

  /** @param pageCount all pages, the null page included; at least 2. */
  constructor(pageCount: number) {
    check(
      Number.isInteger(pageCount) && pageCount >= 2 && pageCount <= 2 ** 32,
      `page allocator: pageCount is ${pageCount}; it must be an integer from 2 to 2^32, the null page included`,
    );
    this.total = pageCount - 1;
    this.#stack = Uint32Array.from({ length: this.total }, (_, i) => this.total - i);
    this.#freeCount = this.total;
    this.#holders = new Uint32Array(pageCount);
  }

  get freeCount(): number {
    return this.#freeCount;
  }

  get usedCount(): number {
    return this.total - this.#freeCount;
  }

  /** How many hold `page`; 0 if it is free. Throws on a page that is not this allocator's. */
  refCount(page: number): number {
    this.#checkOwn(page, "refCount");
    return this.#holders[page]!;
  }

  /** Take n pages, each with one holder. All or nothing: throws OutOfPages and changes nothing if fewer are free. */
  allocate(n: number): number[] {
    check(
      Number.isInteger(n) && n >= 0,
      `page allocator: allocate(${n}); the count must be an integer of at least 0`,
    );
    if (n > this.#freeCount) throw new OutOfPages(n, this.#freeCount, this.total);
    const pages: number[] = [];
    for (let i = 0; i < n; i++) {
      const page = this.#stack[--this.#freeCount]!;
      this.#holders[page] = 1;
      pages.push(page);
    }
    return pages;
  }

  /** One more holder shares `page`, which must be in use. */
  retain(page: number): void {
    this.#checkUsed(page, "retain");
    this.#holders[page]! += 1;
  }

  /** One holder lets go of `page`, which must be in use; the last one frees it. */
  release(page: number): void {
    this.#checkUsed(page, "release");
    this.#holders[page]! -= 1;
    if (this.#holders[page] === 0) this.#stack[this.#freeCount++] = page;
  }

  #checkOwn(page: number, op: string): void {
    check(page !== NULL_PAGE, `page allocator: ${op}(0); page 0 is the null page, which nobody holds`);
    check(
      Number.isInteger(page) && page > 0 && page <= this.total,
      () => `page allocator: ${op}(${page}); this allocator has pages 1 to ${this.total}`,
    );
  }

  #checkUsed(page: number, op: string): void {
    this.#checkOwn(page, op);
    check(
      this.#holders[page] !== 0,
      () => `page allocator: ${op}(${page}); the page is free, so nobody holds it (released twice?)`,
    );
  }
}
