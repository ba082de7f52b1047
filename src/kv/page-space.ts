import { check } from "../check.ts";
import type { Admission, Holding, KvSpace, PageCopy, Region, SpaceUsage } from "./kv-space.ts";
import { PageAllocator } from "./page-allocator.ts";
import { PageTable, validatePageSize } from "./page-table.ts";
import { type PageHash, type Prefix, PrefixCache } from "./prefix-cache.ts";

export interface PagedSpaceOptions {
  /** Usable pages, without the null page. */
  readonly pages: number;
  /** B, slots of a page: 8 to 256. */
  readonly pageSize: number;
  /** Whether sequences that begin alike share their first full pages. */
  readonly prefixCache: boolean;
  /** Share of the pages that admission leaves free for those who run already, 0 to below 1; rounded up to whole pages. */
  readonly watermark: number;
  /** Tests make hashes collide; default `hashPage`. */
  readonly hash?: PageHash;
}

class PagedHolding implements Holding {
  readonly owner: number;
  readonly table: PageTable;
  readonly cachedTokens: number;
  /** Full pages that the prefix cache was told of, and the prefix that they are. */
  knownPages: number;
  prefix: Prefix | undefined;
  /** Until it is released: asked for with every token, where a lookup in a set would count. */
  space: PagedSpace | undefined;

  constructor(owner: number, table: PageTable, cachedTokens: number, knownPages: number, prefix?: Prefix) {
    this.owner = owner;
    this.table = table;
    this.cachedTokens = cachedTokens;
    this.knownPages = knownPages;
    this.prefix = prefix;
  }

  get capacity(): number {
    return this.table.capacity;
  }

  get length(): number {
    return this.table.length;
  }
}

/**
 * Sequences in pages, as PagedAttention has them (Kwon et al., 2023), with prefix caching and copy-on-write forks. A sequence takes
 * a page when its last one is full, wherever it lies: less than a page of it is wasted, and every free page is of use to anybody.
 */
export class PagedSpace implements KvSpace {
  readonly kind = "pages";
  readonly pageSize: number;
  readonly slots: number;
  readonly watermark: number;
  /** What it knows; undefined without prefix caching. */
  readonly prefixCache: PrefixCache | undefined;
  readonly #allocator: PageAllocator;
  readonly #holdings = new Set<PagedHolding>();
  /** Tokens of all holdings. */
  #logical = 0;

  /** Throws BadInput for a page size that cannot be. */
  constructor({ pages, pageSize, prefixCache, watermark, hash }: PagedSpaceOptions) {
    validatePageSize(pageSize);
    check(
      watermark >= 0 && watermark < 1,
      `paged space: watermark is ${watermark}; it must be a share of the pages from 0 to below 1`,
    );
    this.pageSize = pageSize;
    this.slots = (pages + 1) * pageSize;
    this.watermark = Math.ceil(watermark * pages);
    this.prefixCache = prefixCache ? new PrefixCache(pageSize, hash) : undefined;
    this.#allocator = new PageAllocator(pages + 1, (page) => this.prefixCache!.forget(page));
  }

  refusal(sequences: number, finalLength: number): string | undefined {
    const each = Math.ceil(finalLength / this.pageSize);
    const { total } = this.#allocator;
    if (sequences * each <= total) return undefined;
    const who = sequences === 1 ? "a sequence" : `${sequences} sequences`;
    return (
      `${who} of up to ${finalLength} tokens can need ${sequences * each} pages of ${this.pageSize} slots, and there are ` +
      `${total}: raise --kv-pages or --memory, or ask for fewer tokens`
    );
  }

  admit({ tokens, chunk, owner, salt = "" }: Admission): Holding | undefined {
    check(
      tokens.length >= 1 && chunk >= 1,
      `paged space: admission of ${tokens.length} tokens in chunks of ${chunk}; wanted at least 1 of each`,
    );
    const found = this.prefixCache?.find(tokens, salt) ?? [];
    const cachedTokens = found.length * this.pageSize;
    const count = Math.min(chunk, tokens.length - cachedTokens);
    const claimed = found.filter(({ page }) => this.#allocator.refCount(page) === 0).length;
    const free = this.#allocator.freeCount - claimed - Math.ceil(count / this.pageSize);
    if (free < (this.#holdings.size === 0 ? 0 : this.watermark)) return undefined;

    const table = new PageTable(this.#allocator, this.pageSize);
    table.claim(found.map(({ page }) => page));
    table.reserve(count);
    const prefix = this.prefixCache?.enter(salt, found.at(-1));
    return this.#add(new PagedHolding(owner, table, cachedTokens, found.length, prefix));
  }

  grow(holding: Holding, length: number, copies: PageCopy[]): boolean {
    const { table } = this.#own(holding);
    const tokens = length - table.length;
    check(tokens >= 0, () => `paged space: a holding of ${table.length} tokens cannot grow to ${length}`);
    if (!table.tryAppend(tokens, copies)) return false;
    this.#logical += tokens;
    return true;
  }

  commit(holding: Holding, tokens: readonly number[], length: number): void {
    const own = this.#own(holding);
    check(
      length <= own.length && length <= tokens.length,
      () =>
        `paged space: ${length} tokens to commit; the holding has ${own.length}, of which ${tokens.length} are known`,
    );
    if (!this.prefixCache || !own.prefix) return;
    for (let end = (own.knownPages + 1) * this.pageSize; end <= length; end += this.pageSize) {
      const page = own.table.pages[own.knownPages++]!;
      own.prefix = this.prefixCache.extend(own.prefix, page, tokens, end - this.pageSize);
      // Where another page is known to hold the same, this one stays unknown.
      if (own.prefix.page === page) this.#allocator.markKnown(page);
    }
  }

  fork(holding: Holding, owner: number): Holding {
    const { table, cachedTokens, knownPages, prefix } = this.#own(holding);
    const entered = prefix && this.prefixCache?.enter(prefix.salt, prefix);
    return this.#add(new PagedHolding(owner, table.fork(), cachedTokens, knownPages, entered));
  }

  release(holding: Holding): void {
    const own = this.#own(holding);
    this.#holdings.delete(own);
    own.space = undefined;
    this.#logical -= own.length;
    own.table.release();
    if (own.prefix) this.prefixCache?.leave(own.prefix);
  }

  /** The live list: it is right until the holding changes next. */
  slotRow(holding: Holding): readonly number[] {
    return this.#own(holding).table.pages;
  }

  /** O(holdings). */
  usage(): SpaceUsage {
    const { total, usedCount, freeCount, cachedCount } = this.#allocator;
    const reserved = usedCount * this.pageSize;
    const free = freeCount * this.pageSize;
    return {
      total: total * this.pageSize,
      reserved,
      used: reserved - this.#wasted(),
      logical: this.#logical,
      free,
      largestFree: free,
      cached: cachedCount * this.pageSize,
    };
  }

  /** A region for each page. O(pages). */
  regions(): Region[] {
    const owners = Array.from({ length: this.#allocator.total + 1 }, (): number[] => []);
    const used = new Uint32Array(owners.length);
    for (const { owner, table } of this.#holdings) {
      table.pages.forEach((page, i) => {
        owners[page]!.push(owner);
        const filled = Math.min(this.pageSize, Math.max(0, table.length - i * this.pageSize));
        used[page] = Math.max(used[page]!, filled);
      });
    }
    return owners.slice(1).map((who, i) => ({
      slot: (i + 1) * this.pageSize,
      slots: this.pageSize,
      used: used[i + 1]!,
      owners: who,
      isCached: who.length === 0 && this.#allocator.isKnown(i + 1),
    }));
  }

  /** Slots that are held and empty, those of a shared page once. */
  #wasted(): number {
    let wasted = 0;
    const shared = new Set<number>();
    for (const { table } of this.#holdings) {
      wasted += table.wastedTokens;
      const filled = table.length % this.pageSize;
      if (filled === 0) continue;
      const tail = table.pages[(table.length - filled) / this.pageSize]!;
      if (this.#allocator.refCount(tail) === 1) continue;
      // All who share a partly filled page have filled the same part of it: the first who writes on leaves it.
      if (shared.has(tail)) wasted -= this.pageSize - filled;
      shared.add(tail);
    }
    return wasted;
  }

  #add(holding: PagedHolding): PagedHolding {
    this.#holdings.add(holding);
    holding.space = this;
    this.#logical += holding.length;
    return holding;
  }

  #own(holding: Holding): PagedHolding {
    check(
      (holding as PagedHolding).space === this,
      "paged space: this holding was released, or is another space's",
    );
    return holding as PagedHolding;
  }
}
