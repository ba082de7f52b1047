import fc from "fast-check";
import { expect, test } from "vitest";
import { trimEndOf, WHITE_SPACE } from "../../src/tokenizer/trim-end.ts";

test("the list of white space is Unicode's", () => {
  const all = Array.from({ length: 0x10000 }, (_, unit) => String.fromCharCode(unit));
  expect(all.filter((character) => /\p{White_Space}/u.test(character))).toEqual([...WHITE_SPACE].sort());
});

test("trims as the regular expression does, at the end only", () => {
  const text = fc.string({ unit: fc.constantFrom("a", " ", "\n", "\u3000", "\ufeff", "😀") });
  fc.assert(
    fc.property(text, (t) => {
      expect(trimEndOf(t, WHITE_SPACE)).toBe(t.replace(/\p{White_Space}+$/u, ""));
    }),
  );
});

test("a megabyte of line feeds that does not stand at the end is passed over once", () => {
  const text = `${"\n".repeat(1_000_000)}a`;
  expect(trimEndOf(text, new Set("\n"))).toBe(text);
});
