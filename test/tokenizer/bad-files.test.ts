import { truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { BadInput } from "../../src/check.ts";
import { CheckpointError } from "../../src/formats/checkpoint-error.ts";
import { loadTokenizer } from "../../src/tokenizer.ts";
import { folderWith, ROOT } from "./folders.ts";

const ZH = `${ROOT}/weights/novels-zh`;
const VOCABULARY = { a: 0, b: 1, ab: 2, "<|endoftext|>": 3 };
const MERGES = "#version: 0.2\na b\n";
const BERT = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n";
const JSON_MODEL = { type: "BPE", vocab: VOCABULARY, merges: [["a", "b"]] };
const BYTE_LEVEL = { pre_tokenizer: { type: "ByteLevel" }, decoder: { type: "ByteLevel" } };

type Files = Record<string, string | Uint8Array | object>;

/** A folder's files and how its error reads from the file's name on. */
const BAD: [string, Files, string][] = [
  [
    "tokenizer.json is not JSON",
    { "tokenizer.json": '{\n"a": 1,\n!}' },
    "tokenizer.json: line 3: file is not JSON at byte 10: got '!'",
  ],
  [
    "tokenizer.json breaks off",
    { "tokenizer.json": '{\n"a": [1,' },
    "tokenizer.json: line 2: file is not JSON at byte 10: got the end",
  ],
  [
    "tokenizer.json is empty",
    { "tokenizer.json": "" },
    "tokenizer.json: line 1: file is not JSON at byte 0: got the end",
  ],
  [
    "a page of HTML",
    { "tokenizer.json": "<!DOCTYPE html>" },
    "tokenizer.json: line 1: file is not JSON at byte 0: got '<'",
  ],
  ["an array", { "tokenizer.json": "[]" }, "tokenizer.json: got an array, expected a JSON object"],
  ["null", { "tokenizer.json": "null" }, "tokenizer.json: got null, expected a JSON object"],
  [
    "not UTF-8",
    { "tokenizer.json": Uint8Array.of(0x7b, 0xff, 0x7d) },
    "tokenizer.json: got bytes that are not UTF-8 at byte 1",
  ],
  ["no model", { "tokenizer.json": {} }, "tokenizer.json: model: is missing, expected an object"],
  [
    "another kind of model",
    { "tokenizer.json": { model: { ...JSON_MODEL, type: "WordLevel" } } },
    'tokenizer.json: model.type: got "WordLevel", expected BPE, WordPiece or Unigram',
  ],
  [
    "dropped merges",
    { "tokenizer.json": { model: { ...JSON_MODEL, dropout: 0.1 } } },
    "tokenizer.json: model.dropout: got 0.1, expected null: ",
  ],
  [
    "a merge of one token",
    { "tokenizer.json": { model: { ...JSON_MODEL, merges: ["a b", "ab"] } } },
    'tokenizer.json: model.merges.1: got "ab", expected two tokens with a space between',
  ],
  [
    "an unknown part",
    { "tokenizer.json": { model: JSON_MODEL, ...BYTE_LEVEL, pre_tokenizer: { type: "Magic" } } },
    'tokenizer.json: pre_tokenizer.type: got "Magic", expected one of BertPreTokenizer, ByteLevel, Digits',
  ],
  [
    "a template with an unknown token",
    {
      "tokenizer.json": {
        model: JSON_MODEL,
        ...BYTE_LEVEL,
        post_processor: { type: "BertProcessing", cls: ["[X]", 0], sep: ["a", 0] },
      },
    },
    "tokenizer.json: post_processor: got a token that is not in the vocabulary, expected one that is",
  ],
  [
    "whole-word tokens",
    { "tokenizer.json": { model: JSON_MODEL, added_tokens: [{ id: 3, content: "x", single_word: true }] } },
    "tokenizer.json: added_tokens.0.single_word: got true, expected false: whole-word tokens are not supported",
  ],
  [
    "two tokens with one id",
    { "vocab.json": '{\n"a": 0,\n"b": 1,\n"c": 0}', "merges.txt": MERGES },
    "vocab.json: line 4: got id 0 for `a` and for `c`, expected one token for each id",
  ],
  [
    "an id that is none",
    { "vocab.json": { a: 1.5 }, "merges.txt": MERGES },
    "vocab.json: token `a`: got id 1.5, expected an integer from 0 to 4194303",
  ],
  [
    "a piece of text of no length",
    { "tokenizer.json": { model: JSON_MODEL, pre_tokenizer: { type: "FixedLength", length: 0 } } },
    'tokenizer.json: pre_tokenizer.type: got "FixedLength", expected one of',
  ],
  [
    "nothing in a sequence",
    { "tokenizer.json": { model: JSON_MODEL, decoder: { type: "Sequence", decoders: [null] } } },
    "tokenizer.json: decoder.decoders.0: got null, expected an object",
  ],
  [
    "a post-processor without its tokens",
    { "tokenizer.json": { model: JSON_MODEL, post_processor: { type: "RobertaProcessing" } } },
    "tokenizer.json: post_processor.cls: is missing, expected a token and its id",
  ],
  [
    "a template without its pieces",
    { "tokenizer.json": { model: JSON_MODEL, post_processor: { type: "TemplateProcessing", pair: [] } } },
    "tokenizer.json: post_processor.single: is missing, expected a list of pieces",
  ],
  [
    "replacements that grow without end",
    {
      "tokenizer.json": {
        model: JSON_MODEL,
        normalizer: {
          type: "Sequence",
          normalizers: Array.from({ length: 30 }, () => ({
            type: "Replace",
            pattern: { String: "a" },
            content: "aa",
          })),
        },
      },
    },
    "expected parts that make a text at most 256 times longer",
  ],
  [
    "a file that nests deep",
    { "tokenizer.json": `{"decoder":${"[".repeat(100_000)}${"]".repeat(100_000)}}` },
    "tokenizer.json: line 1: file nests deeper than 64 at byte 74",
  ],
  [
    "two equal keys",
    { "vocab.json": '{\n"a": 0,\n"a": 1}', "merges.txt": MERGES },
    "vocab.json: line 3: `a` appears twice, again at byte 10",
  ],
  [
    "an added token with an id that no array has",
    { "tokenizer.json": { model: JSON_MODEL, added_tokens: [{ id: 1e9, content: "x" }] } },
    "tokenizer.json: added_tokens.0.id: got 1000000000, expected at most 4194303",
  ],
  [
    "a million lines too many",
    { "vocab.json": VOCABULARY, "merges.txt": `a b${"\n".repeat(1_000_001)}a b` },
    "merges.txt: lines: got 1000002, expected at most 1000000",
  ],
  [
    "control characters in a key",
    {
      "tokenizer.json": { model: JSON_MODEL },
      "tokenizer_config.json": { added_tokens_decoder: { "\u001b[2J\nx": { content: "x" } } },
    },
    "tokenizer_config.json: added_tokens_decoder.`\\u{1b}[2J\\u{a}x`: ",
  ],
  [
    "control characters in a class",
    { "vocab.txt": BERT, "tokenizer_config.json": { tokenizer_class: "a\nb" } },
    "tokenizer_config.json: tokenizer_class: got `a\\u{a}b`, expected BertTokenizer",
  ],
  ["no tokens", { "vocab.json": {}, "merges.txt": MERGES }, "vocab.json: got an empty vocabulary"],
  [
    "a broken merge",
    { "vocab.json": VOCABULARY, "merges.txt": "#version: 0.2\na b\nab\n" },
    "merges.txt: line 3: got `ab`, expected two tokens with a space between",
  ],
  [
    "a merge of three",
    { "vocab.json": VOCABULARY, "merges.txt": "a b ab\n" },
    "merges.txt: line 1: got `a b ab`, expected two tokens",
  ],
  [
    "an empty line between merges",
    { "vocab.json": VOCABULARY, "merges.txt": "a b\n\na b\n" },
    "merges.txt: line 2: got ``, expected two tokens",
  ],
  [
    "a merge of tokens that make no token",
    { "vocab.json": VOCABULARY, "merges.txt": "b a\n" },
    "merges.txt: line 1: got `b a`, but `ba` is not in the vocabulary",
  ],
  ["an empty vocab.txt", { "vocab.txt": "" }, "vocab.txt: got an empty vocabulary"],
  [
    "a vocab.txt without what BERT puts before a text",
    { "vocab.txt": BERT.replace("[CLS]", "[BOS]") },
    'vocab.txt: got no token `[CLS]`; name the one that takes its place as "cls_token" in tokenizer_config.json',
  ],
  [
    "a class that has no vocab.txt",
    { "vocab.txt": BERT, "tokenizer_config.json": { tokenizer_class: "XLNetTokenizer" } },
    "tokenizer_config.json: tokenizer_class: got `XLNetTokenizer`, expected BertTokenizer beside a vocab.txt",
  ],
  [
    "an option of another type",
    { "vocab.txt": BERT, "tokenizer_config.json": { do_lower_case: "yes" } },
    'tokenizer_config.json: do_lower_case: got "yes", expected true or false',
  ],
  [
    "a special token that is none",
    { "vocab.txt": BERT, "special_tokens_map.json": { cls_token: 5 } },
    "special_tokens_map.json: cls_token: got 5, expected a token's text or object",
  ],
];

test.each(BAD)("%s", async (_, files, message) => {
  const error = await loadTokenizer(await folderWith([], files)).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(CheckpointError);
  const { code, message: given } = error as CheckpointError;
  expect(code).toBe("TOKENIZER");
  expect(given).toContain(message);
  expect(given).not.toContain("\n");
});

test("a file above 64 MiB is refused before it is read", async () => {
  for (const name of ["tokenizer.json", "vocab.txt"]) {
    const folder = await folderWith([], {});
    await writeFile(join(folder, name), "");
    // Sparse: takes no room on the disk.
    await truncate(join(folder, name), 64 * 1024 * 1024 + 1);
    const error = loadTokenizer(folder);
    await expect(error).rejects.toThrow(`${name}: got a file of 67108865 bytes, expected at most 67108864`);
  }
});

test("a folder without a tokenizer says which files it needs", async () => {
  const wanted = "has no tokenizer, expected tokenizer.json, or vocab.json with merges.txt, or vocab.txt";
  await expect(loadTokenizer(await folderWith([], {}))).rejects.toThrow(wanted);
  const half = loadTokenizer(await folderWith([], { "vocab.json": VOCABULARY }));
  await expect(half).rejects.toThrow(BadInput);
  await expect(half).rejects.toThrow("has no merges.txt");
  await expect(loadTokenizer(`${ZH}/vocab.txt`)).rejects.toThrow("got a file, expected a model's folder");
  await expect(loadTokenizer(`${ZH}/missing`)).rejects.toThrow(CheckpointError);
});

test("lines may end as on Windows, and a byte order mark is no part of the text", async () => {
  const windows = await loadTokenizer(
    await folderWith([], {
      "vocab.json": `\uFEFF${JSON.stringify(VOCABULARY)}`,
      "merges.txt": MERGES.replaceAll("\n", "\r\n"),
    }),
  );
  expect(windows.encode("abba")).toEqual([2, 1, 0]);
  const bert = await loadTokenizer(await folderWith([], { "vocab.txt": BERT.replaceAll("\n", "\r\n") }));
  expect(bert.encode("a")).toEqual([2, 5, 3]);
});
