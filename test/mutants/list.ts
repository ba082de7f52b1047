/** A bug to be put into one source file, and the tests that must see it. */
export interface Mutant {
  /** From the project's root. */
  readonly file: string;
  /** Text that is in the file exactly once. */
  readonly find: string;
  readonly replace: string;
  /** What is wrong then. */
  readonly breaks: string;
  /** Which pure tests run, as vitest's filters by file name: one of them must fail. Default: all of `PURE_TESTS`. */
  readonly tests?: readonly string[];
}

/** Tests of what holds and schedules sequences; none needs a GPU. */
export const PURE_TESTS = [
  "test/kv/page-",
  "test/kv/prefix-cache",
  "test/kv/strip-space",
  "test/generate/scheduler",
] as const;

export const MUTANTS: readonly Mutant[] = [
  {
    file: "src/kv/page-allocator.ts",
    find: "if (this.#holders[page] !== 0) return;",
    replace: "",
    breaks: "a shared page is free as soon as one of its holders lets go",
    tests: ["test/kv/page-"],
  },
  {
    file: "src/kv/page-allocator.ts",
    find: "    if (this.#holders[page] === 0) this.#cached.remove(page);\n",
    replace: "",
    breaks: "a page that was claimed while free stays among the free ones",
    tests: ["test/kv/page-"],
  },
  {
    file: "src/kv/page-allocator.ts",
    find: "    this.#onEvict(page);\n",
    replace: "",
    breaks: "the prefix cache still knows a page that has other contents",
    tests: ["test/kv/page-"],
  },
];
