import { check } from "../check.ts";
import { NULL_PAGE } from "./page-allocator.ts";

/** A number for the tokens begin to end - 1 that come after a prefix with the number `predecessor`. u32. */
export type PageHash = (predecessor: number, tokens: readonly number[], begin: number, end: number) => number;

/** Multiplies and shifts as MurmurHash's finalizer does. It need not be safe from enemies: tokens are compared too. */
export const hashPage: PageHash = (predecessor, tokens, begin, end) => {
  let hash = predecessor;
  for (let i = begin; i < end; i++) {
    hash = Math.imul(hash ^ tokens[i]!, 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
    hash ^= hash >>> 16;
  }
  return hash >>> 0;
};

/**
 * A text of whole pages: the tokens of its last page, and the prefix before that. The empty prefix of a salt begins it.
 * Only the cache changes one.
 */
export interface Prefix {
  readonly predecessor: Prefix | undefined;
  /** [B], and none in an empty prefix. */
  readonly tokens: readonly number[];
  readonly hash: number;
  readonly salt: string;
  /** The page with keys and values of `tokens`; NULL_PAGE while there is none. */
  page: number;
  /** Prefixes that are one page longer, and sequences that have come so far. */
  users: number;
}

/**
 * Knows full pages by a hash of their tokens and of all that comes before them. Pure: page numbers and token ids only.
 *
 * A hash only says where to look. Tokens are compared, and the prefix before by identity, so a collision costs time and
 * never gives a wrong page. A prefix outlives its page while anybody uses it: when it is computed again, the pages that
 * come after it can be found again.
 */
export class PrefixCache {
  readonly pageSize: number;
  readonly #hash: PageHash;
  readonly #byHash = new Map<number, Prefix[]>();
  readonly #byPage = new Map<number, Prefix>();
  /** The empty prefix of each salt. */
  readonly #roots = new Map<string, Prefix>();

  /** @param hash another one than `hashPage` only in tests. */
  constructor(pageSize: number, hash: PageHash = hashPage) {
    this.pageSize = pageSize;
    this.#hash = hash;
  }

  /** Pages that are known. */
  get size(): number {
    return this.#byPage.size;
  }

  /** Prefixes that are kept, with a page or without, empty ones included. 0 when nothing is known and used. */
  get prefixCount(): number {
    let count = this.#roots.size;
    for (const bucket of this.#byHash.values()) count += bucket.length;
    return count;
  }

  /**
   * The longest chain of known pages that `tokens` begins with, of at most tokens.length - 1 tokens: at least one is always
   * left to compute, for without it there are no logits. Each prefix is one page longer than the one before.
   */
  find(tokens: readonly number[], salt: string): Prefix[] {
    const found: Prefix[] = [];
    let prefix = this.#roots.get(salt);
    for (let end = this.pageSize; prefix && end < tokens.length; end += this.pageSize) {
      prefix = this.#longer(prefix, this.#hashAfter(prefix, tokens, end - this.pageSize), tokens, end);
      if (prefix === undefined || prefix.page === NULL_PAGE) break;
      found.push(prefix);
    }
    return found;
  }

  /** A sequence begins with `prefix` (of `find`), or with the empty one. It must `leave` or `extend` what it gets. */
  enter(salt: string, prefix?: Prefix): Prefix {
    let entered = prefix ?? this.#roots.get(salt);
    if (entered === undefined) {
      const letters = Array.from({ length: salt.length }, (_, i) => salt.charCodeAt(i));
      const hash = this.#hash(0, letters, 0, letters.length);
      entered = { predecessor: undefined, tokens: [], hash, salt, page: NULL_PAGE, users: 0 };
      this.#roots.set(salt, entered);
    }
    entered.users++;
    return entered;
  }

  /**
   * A sequence that has come to `prefix` has the tokens from `begin` on, one page of them, in `page`: this is known now,
   * unless another page is known to hold the same. The sequence leaves `prefix` and enters the one that is returned.
   */
  extend(prefix: Prefix, page: number, tokens: readonly number[], begin: number): Prefix {
    const end = begin + this.pageSize;
    check(
      end <= tokens.length,
      () => `prefix cache: ${tokens.length} tokens do not fill a page up to ${end}`,
    );
    const hash = this.#hashAfter(prefix, tokens, begin);
    let longer = this.#longer(prefix, hash, tokens, end);
    if (longer === undefined) {
      const { salt } = prefix;
      const own = tokens.slice(begin, end);
      longer = { predecessor: prefix, tokens: own, hash, salt, page: NULL_PAGE, users: 0 };
      prefix.users++;
      const bucket = this.#byHash.get(hash);
      if (bucket) bucket.push(longer);
      else this.#byHash.set(hash, [longer]);
    }
    if (longer.page === NULL_PAGE) {
      check(!this.#byPage.has(page), () => `prefix cache: page ${page} is known with other tokens`);
      longer.page = page;
      this.#byPage.set(page, longer);
    }
    longer.users++;
    this.leave(prefix);
    return longer;
  }

  /** A sequence that has come to `prefix` ends. */
  leave(prefix: Prefix): void {
    check(prefix.users > 0, "prefix cache: left more often than entered");
    prefix.users--;
    this.#dropUnused(prefix);
  }

  /** `page` gets other contents. */
  forget(page: number): void {
    const prefix = this.#byPage.get(page);
    check(prefix, () => `prefix cache: page ${page} is not known`);
    this.#byPage.delete(page);
    prefix.page = NULL_PAGE;
    this.#dropUnused(prefix);
  }

  #hashAfter(prefix: Prefix, tokens: readonly number[], begin: number): number {
    return this.#hash(prefix.hash, tokens, begin, begin + this.pageSize);
  }

  /** The prefix that is `prefix` and the page of tokens up to `end`. */
  #longer(prefix: Prefix, hash: number, tokens: readonly number[], end: number): Prefix | undefined {
    const begin = end - this.pageSize;
    return this.#byHash.get(hash)?.find((p) => p.predecessor === prefix && isAt(p.tokens, tokens, begin));
  }

  /** Let go of a prefix that has neither page nor users, and then of those before it. */
  #dropUnused(prefix: Prefix): void {
    let unused: Prefix | undefined = prefix;
    while (unused && unused.users === 0 && unused.page === NULL_PAGE) {
      if (unused.predecessor === undefined) this.#roots.delete(unused.salt);
      else this.#removeFromBucket(unused);
      unused = unused.predecessor;
      if (unused) unused.users--;
    }
  }

  #removeFromBucket(prefix: Prefix): void {
    const bucket = this.#byHash.get(prefix.hash)!;
    bucket.splice(bucket.indexOf(prefix), 1);
    if (bucket.length === 0) this.#byHash.delete(prefix.hash);
  }
}

/** Whether `tokens` has `part` from `begin` on. */
function isAt(part: readonly number[], tokens: readonly number[], begin: number): boolean {
  for (let i = 0; i < part.length; i++) if (part[i] !== tokens[begin + i]) return false;
  return true;
}
