import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { MUTANTS } from "./mutants/list.ts";

// `npm run mutants` takes minutes, so it runs seldom. Here is only what a change of the code breaks at once: where its bugs go.

test("every seeded bug has its place in the code, and there is one of each", () => {
  const root = new URL("../", import.meta.url);
  const lost = MUTANTS.filter(({ file, find }) => {
    const source = readFileSync(new URL(file, root), "utf8");
    return source.split(find).length !== 2;
  });
  expect(lost.map(({ file, breaks }) => `${file}: ${breaks}`)).toEqual([]);
  expect(new Set(MUTANTS.map(({ file, find, replace }) => `${file}\n${find}\n${replace}`)).size).toBe(
    MUTANTS.length,
  );
});
