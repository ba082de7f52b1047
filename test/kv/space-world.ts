import { expect } from "vitest";
import type { Holding, PageCopy } from "../../src/kv/kv-space.ts";
import { PagedSpace } from "../../src/kv/page-space.ts";
import type { PageHash } from "../../src/kv/prefix-cache.ts";

export const B = 8;
export const PAGES = 24;

/** A sequence that the world believes in. */
export interface Tracked {
  readonly holding: Holding;
  readonly salt: string;
  /** Sequences that were forked from one another have the same. */
  readonly family: number;
  readonly tokens: number[];
  /** What keys and values of each token are: a number for all tokens up to it, and the salt. */
  readonly contents: number[];
  /** Tokens whose keys and values the steps so far have written. */
  written: number;
  /** Full pages that were committed. */
  knownPages: number;
}

/**
 * A paged space, beside it what a plain reader would say that it does, and memory that copies and steps really write. Keys and
 * values of a token depend on all tokens before it, so each slot contains a number for such a text; and no two tenants' are equal.
 */
export class SpaceWorld {
  readonly space: PagedSpace;
  readonly all: Tracked[] = [];
  readonly counts = { admitted: 0, refused: 0, hits: 0, copies: 0, evicted: 0 };
  readonly #hasCache: boolean;
  readonly #memory: Int32Array;
  /** Numbers of texts, by the number of the text before and a token; and back. */
  readonly #texts = new Map<string, number>();
  readonly #before: number[] = [];
  /** Known texts of whole pages, by their number; and back. */
  readonly #pageOf = new Map<number, number>();
  readonly #textOf = new Map<number, number>();
  /** Free known pages, least recently used first. */
  #cached: number[] = [];
  readonly #holders = new Map<number, number>();
  #copies: PageCopy[] = [];
  #owners = 0;

  constructor(prefixCache: boolean, watermark: number, hash?: PageHash) {
    this.#hasCache = prefixCache;
    this.space = new PagedSpace({ pages: PAGES, pageSize: B, prefixCache, watermark, hash });
    this.#memory = new Int32Array(this.space.slots).fill(-1);
  }

  get #free(): number {
    return PAGES - this.#holders.size;
  }

  admit(tokens: readonly number[], chunk: number, salt: string): void {
    const contents = this.#contentsOf(tokens, salt);
    const found: number[] = [];
    for (let end = B; this.#hasCache && end < tokens.length; end += B) {
      const page = this.#pageOf.get(contents[end - 1]!);
      if (page === undefined) break;
      found.push(page);
    }
    const cachedTokens = found.length * B;
    const count = Math.min(chunk, tokens.length - cachedTokens);
    const claimed = found.filter((page) => !this.#holders.has(page));
    const left = this.#free - claimed.length - Math.ceil(count / B);
    const fits = left >= (this.all.length === 0 ? 0 : this.space.watermark);
    const owner = this.#owners++;
    const holding = this.space.admit({ tokens, chunk, finalLength: tokens.length + 1, salt, owner });
    expect(holding !== undefined).toBe(fits);
    if (!holding) {
      this.counts.refused++;
      return;
    }
    const row = this.space.slotRow(holding);
    expect({
      owner: holding.owner,
      cached: holding.cachedTokens,
      length: holding.length,
      capacity: holding.capacity,
      found: row.slice(0, found.length),
    }).toEqual({
      owner,
      cached: cachedTokens,
      length: cachedTokens,
      capacity: cachedTokens + Math.ceil(count / B) * B,
      found,
    });
    this.#cached = this.#cached.filter((page) => !claimed.includes(page));
    for (const page of found) this.#hold(page);
    this.#take(row.slice(found.length));
    const tracked: Tracked = {
      holding,
      salt,
      family: owner,
      tokens: [...tokens],
      contents,
      written: cachedTokens,
      knownPages: found.length,
    };
    this.all.push(tracked);
    this.counts.admitted++;
    this.counts.hits += found.length;
    // The first chunk has its room already.
    const free = this.#free;
    this.grow(tracked, count, 0);
    expect([holding.length, this.#free]).toEqual([cachedTokens + count, free]);
  }

  /** Count tokens more; where the sequence has no more of its own, it generates `token`. */
  grow(tracked: Tracked, count: number, token: number): void {
    const { holding, tokens } = tracked;
    const { length } = holding;
    const before = [...this.space.slotRow(holding)];
    const tail = Math.floor(length / B);
    const copies = count > 0 && length % B > 0 && this.#holders.get(before[tail]!)! > 1;
    const missing = Math.max(0, Math.ceil((length + count) / B) - before.length);
    const fits = missing + (copies ? 1 : 0) <= this.#free;
    const list = this.#copies.length;
    expect(this.space.grow(holding, length + count, this.#copies)).toBe(fits);
    const row = this.space.slotRow(holding);
    if (!fits) {
      expect([holding.length, ...row]).toEqual([length, ...before]);
      expect(this.#copies.length).toBe(list);
      this.counts.refused++;
      return;
    }
    expect([holding.length, row.length]).toEqual([length + count, before.length + missing]);
    if (copies) {
      this.#take([row[tail]!]);
      this.#letGo(before[tail]!);
      expect(this.#copies.at(-1)).toEqual({ from: before[tail], to: row[tail] });
      before[tail] = row[tail]!;
      this.counts.copies++;
    }
    expect(row.slice(0, before.length)).toEqual(before);
    this.#take(row.slice(before.length));
    while (tokens.length < length + count) tokens.push(token);
    tracked.contents.push(...this.#contentsOf(tokens, tracked.salt).slice(tracked.contents.length));
  }

  commit(tracked: Tracked, length: number): void {
    const { holding, tokens, contents } = tracked;
    this.space.commit(holding, tokens.slice(0, length), length);
    for (; this.#hasCache && (tracked.knownPages + 1) * B <= length; tracked.knownPages++) {
      const text = contents[(tracked.knownPages + 1) * B - 1]!;
      if (this.#pageOf.has(text)) continue;
      const page = this.space.slotRow(holding)[tracked.knownPages]!;
      this.#pageOf.set(text, page);
      this.#textOf.set(page, text);
    }
  }

  fork(tracked: Tracked): void {
    if (this.#family(tracked).some((each) => this.#grewInPlan(each))) this.step();
    const { holding, tokens, contents } = tracked;
    const owner = this.#owners++;
    const free = this.#free;
    const twin = this.space.fork(holding, owner);
    const row = this.space.slotRow(twin);
    expect([twin.owner, twin.length, this.#free]).toEqual([owner, holding.length, free]);
    expect(row).toEqual(this.space.slotRow(holding).slice(0, Math.ceil(holding.length / B)));
    for (const page of row) this.#hold(page);
    this.all.push({ ...tracked, holding: twin, tokens: [...tokens], contents: [...contents] });
  }

  /** One sequence after the step is submitted; or in the middle of a plan the whole family, if none is committed to the plan. */
  release(tracked: Tracked, inPlan: boolean): void {
    const family = this.#family(tracked);
    const isCommitted = family.some((each) => each.knownPages * B > each.written);
    const wholeFamily = inPlan && !isCommitted;
    if (!wholeFamily) this.step();
    for (const each of wholeFamily ? family : [tracked]) {
      const row = [...this.space.slotRow(each.holding)];
      this.space.release(each.holding);
      this.all.splice(this.all.indexOf(each), 1);
      for (const page of row.reverse()) this.#letGo(page);
    }
  }

  /** The plan so far is carried out. */
  step(): void {
    this.#run(this.#memory);
    for (const tracked of this.all) tracked.written = tracked.holding.length;
    this.#copies = [];
  }

  /** Everything that must hold, were the step submitted now. */
  expectInvariants(): void {
    const memory = this.#memory.slice();
    this.#run(memory);
    for (const { holding, contents } of this.all) {
      const row = this.space.slotRow(holding);
      if (new Set(row).size !== row.length) expect.fail("a page is twice in one holding");
      for (let p = 0; p < holding.length; p++)
        if (memory[slotOf(row, p)] !== contents[p]) expect.fail(`position ${p} reads back another text`);
    }
    for (const [page, end] of this.#textOf) {
      for (let i = B - 1, text = end; i >= 0; i--, text = this.#before[text]!)
        if (memory[page * B + i] !== text) expect.fail(`known page ${page} contains another text`);
    }
    this.#expectUsage();
  }

  #expectUsage(): void {
    const filled = new Uint32Array(PAGES + 1);
    let logical = 0;
    for (const { holding } of this.all) {
      logical += holding.length;
      this.space.slotRow(holding).forEach((page, i) => {
        filled[page] = Math.max(filled[page]!, Math.min(B, Math.max(0, holding.length - i * B)));
      });
    }
    const wanted = {
      total: PAGES * B,
      reserved: this.#holders.size * B,
      used: filled.reduce((sum, n) => sum + n, 0),
      logical,
      free: this.#free * B,
      largestFree: this.#free * B,
      cached: this.#cached.length * B,
    };
    const usage = this.space.usage();
    if (JSON.stringify(usage) !== JSON.stringify(wanted)) expect(usage).toEqual(wanted);
    for (const { slot, slots, used, owners, isCached } of this.space.regions()) {
      const page = slot / B;
      const isRight =
        slots === B &&
        used === filled[page] &&
        owners.length === (this.#holders.get(page) ?? 0) &&
        isCached === this.#cached.includes(page);
      if (!isRight) expect.fail(`the region of page ${page} is wrong`);
    }
  }

  /** Copies, all at once, and then what the sequences compute. */
  #run(memory: Int32Array): void {
    const targets = new Set(this.#copies.map(({ to }) => to));
    if (targets.size !== this.#copies.length) expect.fail("two copies into one page");
    for (const { from, to } of this.#copies) {
      if (targets.has(from)) expect.fail("a copy from a page that another copy writes");
      memory.copyWithin(to * B, from * B, (from + 1) * B);
    }
    const seen = new Set<number>();
    for (const { holding, contents, written, knownPages } of this.all) {
      const row = this.space.slotRow(holding);
      for (let p = written; p < holding.length; p++) {
        const slot = slotOf(row, p);
        const page = Math.floor(slot / B);
        const isOwn = this.#holders.get(page) === 1 && !this.#textOf.has(page);
        if (!isOwn && p >= knownPages * B) expect.fail(`a write into page ${page}, which is shared or known`);
        if (seen.has(slot) || page === 0) expect.fail(`slot ${slot} is written twice, or the null page's`);
        seen.add(slot);
        memory[slot] = contents[p]!;
      }
    }
  }

  /** Pages that were free: unknown ones while there are any, then the cached ones in their order. */
  #take(pages: readonly number[]): void {
    for (const page of pages) {
      if (this.#holders.has(page)) expect.fail(`page ${page} was handed out and is held`);
      const hasUnknown = this.#free > this.#cached.length;
      if (hasUnknown === this.#textOf.has(page)) expect.fail(`page ${page} is of the wrong kind`);
      if (!hasUnknown) {
        expect(page).toBe(this.#cached.shift());
        this.#pageOf.delete(this.#textOf.get(page)!);
        this.#textOf.delete(page);
        this.counts.evicted++;
      }
      this.#hold(page);
    }
  }

  #hold(page: number): void {
    this.#holders.set(page, (this.#holders.get(page) ?? 0) + 1);
  }

  #letGo(page: number): void {
    const left = this.#holders.get(page)! - 1;
    if (left > 0) this.#holders.set(page, left);
    else this.#holders.delete(page);
    if (left === 0 && this.#textOf.has(page)) this.#cached.push(page);
  }

  #family(tracked: Tracked): Tracked[] {
    return this.all.filter(({ family }) => family === tracked.family);
  }

  #grewInPlan({ holding, written }: Tracked): boolean {
    return holding.length > written;
  }

  #contentsOf(tokens: readonly number[], salt: string): number[] {
    let text = salt === "" ? -2 : -3;
    return tokens.map((token) => {
      const key = `${text},${token}`;
      const known = this.#texts.get(key);
      if (known === undefined) {
        this.#texts.set(key, this.#before.length);
        this.#before.push(text);
      }
      text = known ?? this.#before.length - 1;
      return text;
    });
  }
}

const slotOf = (row: readonly number[], position: number): number =>
  row[Math.floor(position / B)]! * B + (position % B);
