import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { hashPage, type PageHash, type Prefix, PrefixCache } from "../../src/kv/prefix-cache.ts";
import { runsOf, TIMEOUT } from "./operations.ts";

const B = 3;
const OPS_PER_RUN = 200;
const RUNS = runsOf("prefix-cache", OPS_PER_RUN);

/** Ids of the letters of a text, so that tests can be read. */
const ids = (text: string): number[] => Array.from(text, (c) => c.charCodeAt(0));
const pagesOf = (found: readonly Prefix[]): number[] => found.map(({ page }) => page);

/** Make the full pages of `text` known, in the pages that are given, and let go of them. */
function learn(cache: PrefixCache, text: string, pages: readonly number[], salt = ""): void {
  let prefix = cache.enter(salt);
  pages.forEach((page, i) => {
    prefix = cache.extend(prefix, page, ids(text), i * B);
  });
  cache.leave(prefix);
}

const HASHES: [string, PageHash][] = [
  ["its own hash", hashPage],
  ["a hash that always collides", () => 7],
];

describe.each(HASHES)("a prefix cache with %s", (_name, hash) => {
  test("finds the longest chain of known pages, in order", () => {
    const cache = new PrefixCache(B, hash);
    learn(cache, "abcdefghi", [4, 9, 2]);
    expect(pagesOf(cache.find(ids("abcdefghij"), ""))).toEqual([4, 9, 2]);
    expect(pagesOf(cache.find(ids("abcdefgxxx"), ""))).toEqual([4, 9]);
    expect(pagesOf(cache.find(ids("xbcdefghij"), ""))).toEqual([]);
    expect(pagesOf(new PrefixCache(B, hash).find(ids("abcd"), ""))).toEqual([]);
  });

  test("leaves at least one token to compute", () => {
    const cache = new PrefixCache(B, hash);
    learn(cache, "abcdef", [1, 2]);
    const found = ["", "abc", "abcd", "abcdef", "abcdefg"].map(
      (text) => cache.find(ids(text), "").length * B,
    );
    expect(found).toEqual([0, 0, 3, 3, 6]);
  });

  test("knows a page by what comes before it too", () => {
    const cache = new PrefixCache(B, hash);
    learn(cache, "abcdef", [1, 2]);
    learn(cache, "xyzdef", [3, 4]);
    expect(pagesOf(cache.find(ids("abcdefg"), ""))).toEqual([1, 2]);
    expect(pagesOf(cache.find(ids("xyzdefg"), ""))).toEqual([3, 4]);
    expect(pagesOf(cache.find(ids("defdefg"), ""))).toEqual([]);
  });

  test("keeps tenants apart", () => {
    const cache = new PrefixCache(B, hash);
    learn(cache, "abc", [1], "one");
    learn(cache, "abc", [2], "two");
    const found = ["one", "two", "", "eno"].map((salt) => pagesOf(cache.find(ids("abcd"), salt)));
    expect(found).toEqual([[1], [2], [], []]);
  });

  test("of two pages with the same contents knows the first", () => {
    const cache = new PrefixCache(B, hash);
    learn(cache, "abc", [1]);
    const prefix = cache.extend(cache.enter(""), 5, ids("abc"), 0);
    expect(prefix.page).toBe(1);
    expect([cache.size, pagesOf(cache.find(ids("abcd"), ""))]).toEqual([1, [1]]);
  });

  test("finds pages again whose predecessor was evicted and is computed anew", () => {
    const cache = new PrefixCache(B, hash);
    learn(cache, "abcdef", [1, 2]);
    cache.forget(1);
    expect(pagesOf(cache.find(ids("abcdefg"), ""))).toEqual([]);
    learn(cache, "xyz", [1]);
    learn(cache, "abc", [3]);
    expect(pagesOf(cache.find(ids("abcdefg"), ""))).toEqual([3, 2]);
    expect(pagesOf(cache.find(ids("xyzdefg"), ""))).toEqual([1]);
  });

  test("keeps nothing of what is neither known nor in use", () => {
    const cache = new PrefixCache(B, hash);
    learn(cache, "abcdef", [1, 2], "one");
    const prefix = cache.extend(cache.enter("two"), 3, ids("abc"), 0);
    for (const page of [1, 3, 2]) cache.forget(page);
    expect([cache.size, cache.prefixCount]).toEqual([0, 2]);
    cache.leave(prefix);
    expect(cache.prefixCount).toBe(0);
  });
});

test("the hash depends on every token, its place, and what comes before", () => {
  const texts = ["aaaaaa", "baaaaa", "abaaaa", "aaabaa", "aaaaab", "aaaaba"].map(ids);
  const hashes = texts.map((text) => hashPage(hashPage(0, text, 0, 3), text, 3, 6));
  expect(new Set([...hashes, hashPage(1, texts[0]!, 0, 6)]).size).toBe(7);
  expect(hashes.every((h) => Number.isInteger(h) && h >= 0 && h < 2 ** 32)).toBe(true);
});

test("wrong calls say what is wrong", () => {
  const cache = new PrefixCache(B);
  const root = cache.enter("");
  expect(() => cache.forget(3)).toThrow("page 3 is not known");
  expect(() => cache.extend(root, 1, ids("ab"), 0)).toThrow("2 tokens do not fill a page up to 3");
  const one = cache.extend(root, 1, ids("abc"), 0);
  expect(() => cache.extend(one, 1, ids("abcdef"), 3)).toThrow("page 1 is known with other tokens");
  expect(() => cache.leave(root)).not.toThrow();
  expect(() => cache.leave({ ...one, users: 0 })).toThrow("left more often than entered");
});

/** A sequence that is being computed. */
interface Walker {
  prefix: Prefix;
  text: number[];
  salt: string;
}

const op = fc.record({
  kind: fc.constantFrom("extend", "extend", "extend", "enter", "leave", "forget", "forget"),
  which: fc.nat(30),
  tokens: fc.array(fc.nat(1), { minLength: 2 * B, maxLength: 2 * B }),
});

test(
  "a prefix cache knows just what a list of texts and pages knows, after each of many operations",
  () => {
    const total = { done: 0, hits: 0 };
    fc.assert(
      fc.property(
        fc.constantFrom(...HASHES.map(([, hash]) => hash)),
        fc.array(op, { minLength: OPS_PER_RUN, maxLength: OPS_PER_RUN }),
        (hash, ops) => {
          const cache = new PrefixCache(B, hash);
          // What a page holds: all the text up to its end, and the salt.
          const known = new Map<string, number>();
          const key = (text: readonly number[], salt: string) => `${salt}:${text.join("")}`;
          const chain = (text: readonly number[], salt: string): number[] => {
            const pages: number[] = [];
            for (let end = B; end < text.length; end += B) {
              const page = known.get(key(text.slice(0, end), salt));
              if (page === undefined) break;
              pages.push(page);
            }
            return pages;
          };
          const walkers: Walker[] = [];
          let nextPage = 1;
          for (const { kind, which, tokens } of ops) {
            const walker = walkers[which % Math.max(1, walkers.length)];
            const salt = which % 5 === 0 ? "other" : "";
            if (kind === "enter") {
              const found = cache.find(tokens, salt);
              const text = tokens.slice(0, found.length * B);
              walkers.push({ prefix: cache.enter(salt, found.at(-1)), text, salt });
              total.hits += found.length;
            } else if (kind === "extend" && walker) {
              const page = nextPage++;
              walker.text.push(...tokens.slice(0, B));
              walker.prefix = cache.extend(walker.prefix, page, walker.text, walker.text.length - B);
              const name = key(walker.text, walker.salt);
              if (!known.has(name)) known.set(name, page);
              if (walker.prefix.page !== known.get(name)) expect(walker.prefix.page).toBe(known.get(name));
            } else if (kind === "leave" && walker) {
              cache.leave(walker.prefix);
              walkers.splice(walkers.indexOf(walker), 1);
            } else if (kind === "forget" && known.size > 0) {
              const [name, page] = [...known][which % known.size]!;
              cache.forget(page);
              known.delete(name);
            }
            if (cache.size !== known.size) expect(cache.size).toBe(known.size);
            for (const text of [tokens, ...walkers.map((each) => [...each.text, 0])]) {
              for (const of of ["", "other"]) {
                const found = pagesOf(cache.find(text, of)).join();
                if (found !== chain(text, of).join()) expect(found).toBe(chain(text, of).join());
              }
            }
            total.done++;
          }
          for (const { prefix } of walkers) cache.leave(prefix);
          for (const page of known.values()) cache.forget(page);
          expect(cache.prefixCount).toBe(0);
        },
      ),
      { numRuns: RUNS, seed: 3 },
    );
    expect(total.done).toBe(OPS_PER_RUN * RUNS);
    expect(total.hits).toBeGreaterThan(RUNS);
  },
  TIMEOUT,
);
