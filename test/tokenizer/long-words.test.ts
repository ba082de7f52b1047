import { readFile } from "node:fs/promises";
import { Tokenizer } from "@huggingface/tokenizers";
import fc from "fast-check";
import { expect, test } from "vitest";
import { wordMerger } from "../../src/tokenizer/long-words.ts";
import { ROOT } from "./folders.ts";

interface LibraryModel {
  readonly model: { bpe(word: string): string[] };
}

const json = JSON.parse(await readFile(`${ROOT}/weights/novels-en/tokenizer.json`, "utf8"));
const library = new Tokenizer(json, {}) as unknown as LibraryModel;
const merge = wordMerger(new Map(Object.entries(json.model.vocab)), json.model.merges);

test("words of any letters are merged as the library does it", () => {
  // Few letters make many pairs of one rank, whose order then counts; ☃ is no byte and in no merge.
  const word = fc.array(fc.constantFrom("t", "h", "e", "Ġ", "a", "n", "Ċ", "☃"), { maxLength: 300 });
  fc.assert(
    fc.property(word, (letters) => {
      expect(merge(letters.join(""))).toEqual(library.model.bpe(letters.join("")));
    }),
  );
});

test("runs of one character are merged from the left", () => {
  for (const character of ["Ġ", "a", "-", "☃"]) {
    for (const length of [0, 1, 2, 3, 255, 256, 1001]) {
      const run = character.repeat(length);
      expect(merge(run)).toEqual(library.model.bpe(run));
    }
  }
});
