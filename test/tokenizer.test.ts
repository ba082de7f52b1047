import { readFile } from "node:fs/promises";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { loadTokenizer, streamAfter, streamDecoder, type Tokenizer } from "../src/tokenizer.ts";
import { folderWith, ROOT } from "./tokenizer/folders.ts";

interface GoldenText {
  readonly text: string;
  readonly add_special_tokens: boolean;
  readonly ids: number[];
  readonly decoded: string;
  readonly decoded_skip_special: string;
}

const EN = `${ROOT}/weights/novels-en`;
const ZH = `${ROOT}/weights/novels-zh`;
const GPT2 = `${ROOT}/test/golden/gpt2-tokenizer`;
const en = await loadTokenizer(EN);
const zh = await loadTokenizer(ZH);
const gpt2 = await loadTokenizer(GPT2);
const zhCleaned = await loadTokenizer(
  await folderWith([`${ZH}/vocab.txt`], {
    "tokenizer_config.json": { tokenizer_class: "BertTokenizer", clean_up_tokenization_spaces: true },
  }),
);

const GOLDEN: [string, Tokenizer][] = [
  ["tokenizer-en", en],
  ["tokenizer-gpt2", gpt2],
  ["tokenizer-zh", zh],
];

async function golden(name: string) {
  return JSON.parse(await readFile(`${ROOT}/test/golden/${name}.json`, "utf8"));
}

function streamed(tokenizer: Tokenizer, ids: readonly number[], skipSpecialTokens = false): string {
  const stream = streamDecoder(tokenizer, { skipSpecialTokens });
  return ids.map((id) => stream.push(id)).join("") + stream.end();
}

describe("the golden texts", () => {
  for (const [name, tokenizer] of GOLDEN) {
    test(`${name}: ids, decoded text and decoded text without special tokens`, async () => {
      const entries: GoldenText[] = await golden(name);
      expect(entries.length).toBeGreaterThan(20);
      for (const { text, add_special_tokens, ids, decoded, decoded_skip_special } of entries) {
        expect(tokenizer.encode(text, { addSpecialTokens: add_special_tokens }), text).toEqual(ids);
        expect(tokenizer.decode(ids), text).toBe(decoded);
        expect(tokenizer.decode(ids, { skipSpecialTokens: true }), text).toBe(decoded_skip_special);
      }
    });
  }

  test("prompts of the golden models have the golden ids", async () => {
    for (const [name, tokenizer] of [["novels-en", en] as const, ["novels-zh", zh] as const]) {
      for (const { prompt, add_special_tokens, ids, greedy, text } of (await golden(name)).prompts) {
        expect(tokenizer.encode(prompt, { addSpecialTokens: add_special_tokens })).toEqual(ids);
        expect(tokenizer.decode([...ids, ...greedy], { skipSpecialTokens: true })).toBe(text);
      }
    }
  });
});

describe("forms of one tokenizer", () => {
  test("vocab.json with merges.txt gives the ids of tokenizer.json", async () => {
    const merges = await loadTokenizer(await folderWith([`${EN}/vocab.json`, `${EN}/merges.txt`]));
    const entries: GoldenText[] = await golden("tokenizer-en");
    for (const { text, ids } of entries) expect(merges.encode(text)).toEqual(ids);
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => same(merges.encode(text), en.encode(text))),
    );
  });

  test("a tokenizer.json from before the model's type was written, merges as strings", async () => {
    const json = JSON.parse(await readFile(`${EN}/tokenizer.json`, "utf8"));
    json.model.merges = json.model.merges.map((pair: string[]) => pair.join(" "));
    delete json.model.type;
    delete json.added_tokens;
    const old = await loadTokenizer(await folderWith([], { "tokenizer.json": json }));
    expect(old.encode("The old lady<|endoftext|>")).toEqual(en.encode("The old lady<|endoftext|>"));
    expect(old.eosTokenId).toBe(0);
  });

  test("what the files say of special tokens and ids", async () => {
    expect([en.vocabSize, en.bosTokenId, en.eosTokenId, en.isSpecial(0)]).toEqual([4096, 0, 0, true]);
    expect([gpt2.vocabSize, gpt2.bosTokenId, gpt2.eosTokenId]).toEqual([50257, 50256, 50256]);
    expect([zh.vocabSize, zh.bosTokenId, zh.eosTokenId, zh.isSpecial(3)]).toEqual([
      6743,
      undefined,
      undefined,
      true,
    ]);
    expect([gpt2.idToToken(262), gpt2.idToToken(50257), zh.idToToken(5)]).toEqual(["Ġthe", undefined, "，"]);
  });

  test("add_bos_token, add_prefix_space and added tokens are honoured, with Hugging Face's ids", async () => {
    const files = [`${GPT2}/vocab.json`, `${GPT2}/merges.txt`];
    const config = { add_bos_token: true, add_prefix_space: true };
    const bos = await loadTokenizer(await folderWith(files, { "tokenizer_config.json": config }));
    expect(bos.encode("hi")).toEqual([50256, 23105]);
    expect(bos.encode("hi", { addSpecialTokens: false })).toEqual([23105]);
    const extra = await loadTokenizer(
      await folderWith(files, {
        "added_tokens.json": { "<extra>": 50257 },
        "special_tokens_map.json": { pad_token: { content: "<extra>", lstrip: false } },
      }),
    );
    expect(extra.encode("hi<extra>")).toEqual([5303, 50257]);
    expect(extra.decode([5303, 50257], { skipSpecialTokens: true })).toBe("hi");
  });

  test("BERT's options", async () => {
    const load = async (options: object) =>
      await loadTokenizer(
        await folderWith([`${ZH}/vocab.txt`], {
          "tokenizer_config.json": { tokenizer_class: "BertTokenizerFast", ...options },
        }),
      );
    const ids = async (text: string, options: object) =>
      (await load(options)).encode(text, { addSpecialTokens: false });
    const unknown = 1;
    expect(await ids("É", {})).toEqual(zh.encode("e", { addSpecialTokens: false }));
    expect(await ids("é", { strip_accents: false })).toEqual([unknown]);
    expect(await ids("é", { do_lower_case: false, strip_accents: true })).toEqual(await ids("e", {}));
    expect(await ids("天下", { tokenize_chinese_chars: false })).toEqual([unknown]);
  });
});

describe("where the library differs from Hugging Face's own (ids by tokenizers 0.23.2)", () => {
  test.each([
    ["U+0085 is white space, U+FEFF is not", en, "x\u0085y\uFEFFz", [88, 127, 228, 89, 172, 120, 124, 90]],
    ["Chinese characters above U+FFFF stand alone", zh, "𠮷野家", [1, 1033, 36]],
    ["İ loses its dot", zh, "İstanbul", [6303, 6601, 6725, 6606, 6710, 6283, 6603]],
  ])("%s", (_, tokenizer, text, ids) => {
    expect(tokenizer.encode(text, { addSpecialTokens: false })).toEqual(ids);
  });

  test("a final capital sigma is lowered like any other", async () => {
    const vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nας\nασ\n";
    const greek = await loadTokenizer(await folderWith([], { "vocab.txt": vocabulary }));
    expect(greek.encode("ΑΣ", { addSpecialTokens: false })).toEqual([6]);
  });

  test("ids without a token have no text, and no ids are no text", () => {
    expect(gpt2.decode([15496, 50300, 4_000_000, 995])).toBe("Hello world");
    expect([gpt2.decode([]), zh.decode([]), streamed(en, [])]).toEqual(["", "", ""]);
  });
});

describe("streaming", () => {
  for (const [name, tokenizer] of [...GOLDEN, ["with clean_up_tokenization_spaces", zhCleaned] as const]) {
    test(`${name}: pieces joined are the text of all ids, whatever the ids`, () => {
      const ids = fc.array(fc.integer({ min: 0, max: tokenizer.vocabSize + 10 }), { maxLength: 60 });
      fc.assert(
        fc.property(ids, fc.boolean(), (list, skipSpecialTokens) =>
          same(streamed(tokenizer, list, skipSpecialTokens), tokenizer.decode(list, { skipSpecialTokens })),
        ),
      );
    });
  }

  test("a character comes out whole, with its last byte", () => {
    const stream = streamDecoder(en);
    const pieces = en.encode("a😀é").map((id) => stream.push(id));
    expect(pieces.filter((piece) => piece !== "")).toEqual(["a", "😀", "é"]);
    expect(stream.end()).toBe("");
  });

  test("bytes that never become a character come out at the end as U+FFFD", () => {
    const stream = streamDecoder(en);
    const [first, second] = en.encode("😀");
    expect([stream.push(first!), stream.push(second!), stream.end()]).toEqual(["", "", "\uFFFD"]);
  });

  test("well-formed text never shows U+FFFD on the way", () => {
    const text = fc.string({ unit: "binary" }).map((raw) => raw.replaceAll("\uFFFD", ""));
    fc.assert(
      fc.property(text, (given) => {
        const stream = streamDecoder(gpt2);
        return gpt2.encode(given).every((id) => !stream.push(id).includes("\uFFFD"));
      }),
    );
  });
});

describe("hard texts", () => {
  test("every text comes back from byte-level ids", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => same(gpt2.decode(gpt2.encode(text)), text)),
    );
  });

  test.each(["a", " ", "\0", "話", "😀", "="])("a megabyte of %j", (character) => {
    const text = character.repeat(2 ** 20 / Buffer.byteLength(character));
    expect(same(en.decode(en.encode(text)), text)).toBe(true);
    expect(zh.encode(text).length).toBeGreaterThanOrEqual(2);
  });

  test("half a surrogate pair counts as U+FFFD", () => {
    expect(en.encode("a\uD83Db\uDE00")).toEqual(en.encode("a\uFFFDb\uFFFD"));
    expect(zh.encode("a\uD83Db")).toEqual(zh.encode("ab"));
  });
});

/** Cheaper to compare than by `expect` where the values are long. */
function same(left: string | number[], right: string | number[]): boolean {
  return JSON.stringify(left) === JSON.stringify(right);
}

test("text that continues a prompt begins as it does in the whole text", async () => {
  const tokenizer = await loadTokenizer(ZH);
  const prompt = tokenizer.encode("话说天下", { addSpecialTokens: false });
  const more = tokenizer.encode("大势", { addSpecialTokens: false });
  const decoder = streamAfter(tokenizer, prompt);
  const text = more.map((id) => decoder.push(id)).join("") + decoder.end();
  expect(tokenizer.decode(prompt) + text).toBe(tokenizer.decode([...prompt, ...more]));
});
