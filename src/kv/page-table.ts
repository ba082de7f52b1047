import { BadInput, check } from "../check.ts";
import type { PageAllocator } from "./page-allocator.ts";

export const DEFAULT_PAGE_SIZE = 16;
const MIN_PAGE_SIZE = 8;
const MAX_PAGE_SIZE = 256;

/** Throws BadInput unless `pageSize` (slots of a page, B) is an integer from 8 to 256. Any such integer will do. */
export function validatePageSize(pageSize: number): void {
  if (!Number.isInteger(pageSize) || pageSize < MIN_PAGE_SIZE || pageSize > MAX_PAGE_SIZE) {
    throw new BadInput(
      `page size is ${pageSize}; it must be an integer from ${MIN_PAGE_SIZE} to ${MAX_PAGE_SIZE} tokens`,
    );
  }
}

/**
 * Maps the positions of one sequence to slots of the KV cache: slot = page · B + offset.
 *
 * The list of pages is append-only: once a position has a slot, it keeps it until `release`. Counts are tokens; a
 * cache multiplies them by its bytes per token. Tables of one cache share one allocator.
 */
export class PageTable {
  readonly pageSize: number;
  readonly #allocator: PageAllocator;
  #pages: number[] = [];
  #length = 0;

  /** @param pageSize B, slots of a page: an integer from 8 to 256, else BadInput. */
  constructor(allocator: PageAllocator, pageSize: number = DEFAULT_PAGE_SIZE) {
    validatePageSize(pageSize);
    this.#allocator = allocator;
    this.pageSize = pageSize;
  }

  /** Tokens that the table holds. */
  get length(): number {
    return this.#length;
  }

  /** Tokens that fit into the pages held. */
  get capacity(): number {
    return this.#pages.length * this.pageSize;
  }

  /** Pages in the order of positions: page i holds positions i·B to i·B + B - 1. */
  get pages(): readonly number[] {
    return this.#pages;
  }

  /** Same as `capacity`. Tables that share pages each count them; the allocator's `usedCount` counts each once. */
  get reservedTokens(): number {
    return this.capacity;
  }

  get usedTokens(): number {
    return this.#length;
  }

  /** Slots held and not used; under B unless `reserve` asked for more. */
  get wastedTokens(): number {
    return this.capacity - this.#length;
  }

  /** Take pages until `tokens` more fit. All or nothing: throws OutOfPages and changes nothing. */
  reserve(tokens: number): void {
    check(
      Number.isInteger(tokens) && tokens >= 0,
      `page table: ${tokens} tokens to hold; the count must be an integer of at least 0`,
    );
    const missing = Math.ceil((this.#length + tokens) / this.pageSize) - this.#pages.length;
    if (missing <= 0) return;
    for (const page of this.#allocator.allocate(missing)) this.#pages.push(page);
  }

  /** Hold `tokens` more: their slots are those of positions length to length + tokens - 1. Throws as `reserve`. */
  append(tokens: number): void {
    this.reserve(tokens);
    this.#length += tokens;
  }

  /** The slot of a position below `capacity`: a reserved position has its slot before its token comes. */
  slotOf(position: number): number {
    check(
      Number.isInteger(position) && position >= 0 && position < this.capacity,
      () => `page table: position ${position} has no slot; the table holds pages for ${this.capacity} tokens`,
    );
    const page = this.#pages[Math.floor(position / this.pageSize)]!;
    return page * this.pageSize + (position % this.pageSize);
  }

  /** Slots of positions begin to end - 1, end up to `capacity`. [end - begin] u32, as a slot mapping has them. */
  slots(begin: number, end: number): Uint32Array<ArrayBuffer> {
    check(
      Number.isInteger(begin) && Number.isInteger(end) && begin >= 0 && begin <= end && end <= this.capacity,
      () =>
        `page table: no slots for positions ${begin} to ${end}; the table holds pages for ${this.capacity} tokens`,
    );
    return Uint32Array.from({ length: end - begin }, (_, i) => this.slotOf(begin + i));
  }

  /**
   * A second table that shares this one's full pages, by reference count. Takes no new page, so it cannot run out.
   *
   * A partly filled last page is not shared, for both tables would append to it: the fork's `length` is this length
   * rounded down to whole pages, and its owner computes the tokens from there on (fewer than B) again. Neither table
   * ever writes a shared page: both append past it.
   */
  fork(): PageTable {
    const twin = new PageTable(this.#allocator, this.pageSize);
    const fullPages = Math.floor(this.#length / this.pageSize);
    twin.#pages = this.#pages.slice(0, fullPages);
    twin.#length = fullPages * this.pageSize;
    for (const page of twin.#pages) this.#allocator.retain(page);
    return twin;
  }

  /**
   * Let go of every page. The table is then empty and may be filled anew, so a second release does nothing. Pages go
   * back last first, and thus come out again in the order in which this table held them.
   */
  release(): void {
    for (let i = this.#pages.length - 1; i >= 0; i--) this.#allocator.release(this.#pages[i]!);
    this.#pages = [];
    this.#length = 0;
  }
}
