import { check } from "../check.ts";
import { PageQueue } from "./page-queue.ts";

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
 * Pages 1 to pageCount - 1 are usable; page 0 is the null page and is never handed out. Every operation is O(1) a page.
 *
 * Free pages are of two kinds. Those whose contents nobody knows go out first, the page freed last before the others (a
 * stack; a new allocator hands out 1, 2, 3, …). Those that a prefix cache knows (`markKnown`) can be had back with their
 * contents (`claim`); they go out when no others are left, the one freed longest ago first, and `onEvict` is told.
 */
export class PageAllocator {
  /** Usable pages, without the null page. */
  readonly total: number;
  /** Free pages with unknown contents; the top of the stack, at #stackSize - 1, goes out next. */
  readonly #stack: Uint32Array;
  #stackSize: number;
  /** Free pages with known contents, least recently used first. */
  readonly #cached: PageQueue;
  /** Holders of each page [pageCount]; 0 means free. */
  readonly #holders: Uint32Array;
  /** [pageCount]: 1 where a prefix cache knows the contents. */
  readonly #known: Uint8Array;
  readonly #onEvict: (page: number) => void;

  /**
   * @param pageCount all pages, the null page included; at least 2.
   * @param onEvict gets a known page when it is handed out for other contents: the prefix cache must forget it.
   */
  constructor(pageCount: number, onEvict: (page: number) => void = () => {}) {
    check(
      Number.isInteger(pageCount) && pageCount >= 2 && pageCount <= 2 ** 32,
      `page allocator: pageCount is ${pageCount}; it must be an integer from 2 to 2^32, the null page included`,
    );
    this.total = pageCount - 1;
    this.#stack = Uint32Array.from({ length: this.total }, (_, i) => this.total - i);
    this.#stackSize = this.total;
    this.#cached = new PageQueue(pageCount);
    this.#holders = new Uint32Array(pageCount);
    this.#known = new Uint8Array(pageCount);
    this.#onEvict = onEvict;
  }

  /** Free pages of both kinds. */
  get freeCount(): number {
    return this.#stackSize + this.#cached.size;
  }

  /** Free pages whose contents a prefix cache knows. */
  get cachedCount(): number {
    return this.#cached.size;
  }

  get usedCount(): number {
    return this.total - this.freeCount;
  }

  /** How many hold `page`; 0 if it is free. Throws on a page that is not this allocator's. */
  refCount(page: number): number {
    this.#checkOwn(page, "refCount");
    return this.#holders[page]!;
  }

  /** Whether a prefix cache knows the contents of `page`, free or not: then nobody may write it. */
  isKnown(page: number): boolean {
    this.#checkOwn(page, "isKnown");
    return this.#known[page] === 1;
  }

  /** Take n pages, each with one holder. All or nothing: throws OutOfPages and changes nothing if fewer are free. */
  allocate(n: number): number[] {
    check(
      Number.isInteger(n) && n >= 0,
      `page allocator: allocate(${n}); the count must be an integer of at least 0`,
    );
    if (n > this.freeCount) throw new OutOfPages(n, this.freeCount, this.total);
    const pages: number[] = [];
    for (let i = 0; i < n; i++) {
      const page = this.#stackSize > 0 ? this.#stack[--this.#stackSize]! : this.#evict();
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

  /** One more holder for a page whose contents are known, in use or free. */
  claim(page: number): void {
    check(
      this.isKnown(page),
      () => `page allocator: claim(${page}); nobody knows what is in this page, so it can only be allocated`,
    );
    if (this.#holders[page] === 0) this.#cached.remove(page);
    this.#holders[page]! += 1;
  }

  /** A prefix cache knows the contents of `page`, which must be in use, until the page is evicted. */
  markKnown(page: number): void {
    this.#checkUsed(page, "markKnown");
    this.#known[page] = 1;
  }

  /** One holder lets go of `page`, which must be in use; the last one frees it. */
  release(page: number): void {
    this.#checkUsed(page, "release");
    this.#holders[page]! -= 1;
    if (this.#holders[page] !== 0) return;
    if (this.#known[page] === 1) this.#cached.push(page);
    else this.#stack[this.#stackSize++] = page;
  }

  /** The least recently used of the cached pages, for other contents. */
  #evict(): number {
    const page = this.#cached.shift();
    this.#known[page] = 0;
    this.#onEvict(page);
    return page;
  }

  #checkOwn(page: number, op: string): void {
    if (Number.isInteger(page) && page > 0 && page <= this.total) return;
    check(page !== NULL_PAGE, `page allocator: ${op}(0); page 0 is the null page, which nobody holds`);
    check(false, `page allocator: ${op}(${page}); this allocator has pages 1 to ${this.total}`);
  }

  #checkUsed(page: number, op: string): void {
    this.#checkOwn(page, op);
    if (this.#holders[page] === 0)
      check(false, `page allocator: ${op}(${page}); the page is free, so nobody holds it (released twice?)`);
  }
}
