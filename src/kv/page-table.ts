import { BadInput, check } from "../check.ts";
import type { PageCopy } from "./kv-space.ts";
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
 * The list of pages is append-only: once a position has a slot, it keeps it until `release`. One page is an exception: a
 * fork shares the partly filled last page too, and the first of the two that writes into it gets a copy (copy-on-write).
 * Counts are tokens; a cache multiplies them by its bytes per token. Tables of one cache share one allocator.
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

  /** Pages that `reserve(tokens)` takes: those that are missing, and one for the copy of a shared page. */
  pagesFor(tokens: number): number {
    const missing = Math.ceil((this.#length + tokens) / this.pageSize) - this.#pages.length;
    return Math.max(0, missing) + (tokens > 0 && this.#sharesTail() ? 1 : 0);
  }

  /**
   * Take pages until `tokens` more fit, in pages that nobody else holds. All or nothing: throws OutOfPages and changes nothing.
   * @param copies gets the copy that must be made before the tokens are written. Needed only by tables that were forked.
   */
  reserve(tokens: number, copies?: PageCopy[]): void {
    check(
      Number.isInteger(tokens) && tokens >= 0,
      `page table: ${tokens} tokens to hold; the count must be an integer of at least 0`,
    );
    const wanted = this.pagesFor(tokens);
    if (wanted === 0) return;
    const copiesTail = this.#sharesTail();
    check(copies || !copiesTail, "page table: the last page is shared; give a list that its copy can go to");
    const fresh = this.#allocator.allocate(wanted);
    if (copies && copiesTail) {
      const tail = this.#tailIndex();
      const [from, to] = [this.#pages[tail]!, fresh.shift()!];
      this.#pages[tail] = to;
      this.#allocator.release(from);
      addCopy(copies, { from, to });
    }
    this.#pages.push(...fresh);
  }

  /** Hold `tokens` more: their slots are those of positions length to length + tokens - 1. Throws as `reserve`. */
  append(tokens: number, copies?: PageCopy[]): void {
    this.reserve(tokens, copies);
    this.#length += tokens;
  }

  /** As `append`, but false where the allocator has too few pages; then nothing has changed. */
  tryAppend(tokens: number, copies: PageCopy[]): boolean {
    const wanted = this.pagesFor(tokens);
    if (wanted > 0) {
      if (wanted > this.#allocator.freeCount) return false;
      this.reserve(tokens, copies);
    }
    this.#length += tokens;
    return true;
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
    const slots = new Uint32Array(end - begin);
    for (let i = 0; i < slots.length; i++) slots[i] = this.slotOf(begin + i);
    return slots;
  }

  /**
   * A second table of the same length that shares every page with tokens, by reference count. Takes no new page, so it cannot
   * run out. A partly filled last page is shared until one of the two writes; pages reserved ahead are not shared.
   */
  fork(): PageTable {
    const twin = new PageTable(this.#allocator, this.pageSize);
    twin.#pages = this.#pages.slice(0, Math.ceil(this.#length / this.pageSize));
    twin.#length = this.#length;
    for (const page of twin.#pages) this.#allocator.retain(page);
    return twin;
  }

  /** Begin an empty table with full pages whose contents are known: their tokens need not be computed. */
  claim(pages: readonly number[]): void {
    check(this.#pages.length === 0, "page table: only an empty table can begin with known pages");
    for (const page of pages) this.#allocator.claim(page);
    this.#pages = [...pages];
    this.#length = pages.length * this.pageSize;
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
  /** Whether the page that the next token goes to has tokens already and another holder. */
  #sharesTail(): boolean {
    if (this.#length % this.pageSize === 0) return false;
    return this.#allocator.refCount(this.#pages[this.#tailIndex()]!) > 1;
  }

  /** Index of the page that the next token goes to. */
  #tailIndex(): number {
    return Math.floor(this.#length / this.pageSize);
  }
}

/**
 * Add a copy to those of a step, which are carried out all at once. `to` was free until now, so whoever wanted a copy from it
 * or into it earlier in the step has let go of its pages: that copy is dropped, or the two would race.
 */
function addCopy(copies: PageCopy[], copy: PageCopy): void {
  for (let i = copies.length - 1; i >= 0; i--) {
    if (copies[i]!.to === copy.to || copies[i]!.from === copy.to) copies.splice(i, 1);
  }
  copies.push(copy);
}
