import { describe, expect, it } from "vitest";
import { entry, header, openAs, refusal, safetensors, withLength } from "./safetensors-file.ts";

const TEXT = new TextEncoder();

function refused(text: string | Uint8Array, data = 4): Promise<string> {
  return refusal(openAs(safetensors(text, data)));
}

describe("safetensors: the length of the header", () => {
  it("1: a file of 0 to 7 bytes is too small", async () => {
    for (let size = 0; size < 8; size++) {
      const message = await refusal(openAs(new Uint8Array(size).fill(0x7b)));
      expect(message).toBe(`HEADER_TOO_SMALL: f: file has ${size} bytes, needs at least 8`);
    }
  });

  it("2: a header of 0 bytes is empty", async () => {
    const expected = "HEADER_EMPTY: f: header says 0 bytes, needs at least 2";
    expect(await refusal(openAs(withLength(0n)))).toBe(expected);
    expect(await refusal(openAs(withLength(0n, TEXT.encode("{}"))))).toBe(expected);
  });

  it("3: a header of 100,000,001 bytes is too large", async () => {
    const message = await refusal(openAs(withLength(100_000_001n, TEXT.encode("{}"))));
    expect(message).toBe("HEADER_TOO_LARGE: f: header says 100000001 bytes, limit 100000000");
  });

  it.each([2n ** 63n, 2n ** 64n - 1n, 0xffffff000000003cn, 2n ** 53n + 1n])(
    "4: a header of %s bytes is too large, and the number is printed exactly",
    async (length) => {
      const message = await refusal(openAs(withLength(length, TEXT.encode("{}"))));
      expect(message).toBe(`HEADER_TOO_LARGE: f: header says ${length} bytes, limit 100000000`);
    },
  );

  it("5: a header longer than the file", async () => {
    const message = await refusal(openAs(withLength(1000n, TEXT.encode("{".padEnd(72)))));
    expect(message).toBe("HEADER_LENGTH: f: header says 1000 bytes, only 72 left in file");
  });

  it("5: a header of exactly the limit is only too long for this file", async () => {
    const message = await refusal(openAs(withLength(100_000_000n, TEXT.encode("{}"))));
    expect(message).toBe("HEADER_LENGTH: f: header says 100000000 bytes, only 2 left in file");
  });

  it("6: a file of nothing but a length", async () => {
    const message = await refusal(openAs(withLength(2n)));
    expect(message).toBe("HEADER_LENGTH: f: header says 2 bytes, only 0 left in file");
  });
});

describe("safetensors: the text of the header", () => {
  it.each([
    ["a byte that never occurs", [0xff], 0, "0xff"],
    ["an overlong slash", [0x7b, 0x22, 0xc0, 0xaf], 2, "0xc0"],
    ["an overlong three-byte form", [0x7b, 0x22, 0xe0, 0x80, 0xaf], 2, "0xe0"],
    ["a surrogate", [0x7b, 0x22, 0xed, 0xa0, 0x80], 2, "0xed"],
    ["a code point above U+10FFFF", [0x7b, 0x22, 0xf4, 0x90, 0x80, 0x80], 2, "0xf4"],
    ["a character cut off by the end", [0x7b, 0x22, 0xe2, 0x82], 2, "0xe2"],
    ["a continuation byte alone", [0x7b, 0x22, 0x80], 2, "0x80"],
  ])("7: not UTF-8: %s", async (_why, bytes, at, got) => {
    const message = await refused(Uint8Array.from(bytes));
    expect(message).toBe(`HEADER_UTF8: f: header is not UTF-8 at byte ${at}: got ${got}`);
  });

  it.each([
    ["{", 1, "the end", `'"'`],
    [`{"w":1,}`, 7, "'}'", `'"'`],
    [`{'w':1}`, 1, "'''", `'"'`],
    [`{"w":NaN}`, 5, "'N'", "a value"],
    [`{"w":nil}`, 5, "'n'", "a value"],
    [`{"w":Infinity}`, 5, "'I'", "a value"],
    [`{/* c */}`, 1, "'/'", `'"'`],
    [`{} // c`, 3, "'/'", "the end"],
    ["{}\0\0", 2, "0x00", "the end"],
    [`{"a\nb":1}`, 3, "0x0a", "the end of a string"],
    [`{"w`, 3, "the end", "the end of a string"],
    [`{"w":{"x":01}}`, 11, "'1'", "'}'"],
    [`{"w":{"x":1.}}`, 12, "'}'", "a digit"],
    [`{"w":{"x":-}}`, 11, "'}'", "a digit"],
    [`{"w":{"x":1e+}}`, 13, "'}'", "a digit"],
    [`{"w":{"x":+1}}`, 10, "'+'", "a value"],
    [`{"w":{"x":[1,]}}`, 13, "']'", "a value"],
    [`{"w":{"x":[1 2]}}`, 13, "'2'", "']'"],
    [`{"w" 1}`, 5, "'1'", "':'"],
    [String.raw`{"\x41":1}`, 2, String.raw`'\'`, "a JSON escape"],
    [String.raw`{"\u00g0":1}`, 2, String.raw`'\'`, "a JSON escape"],
    [String.raw`{"\ud800":1}`, 2, String.raw`'\'`, "a JSON escape"],
    [String.raw`{"\udc00\ud800":1}`, 2, String.raw`'\'`, "a JSON escape"],
    [String.raw`{"\ud800\u0041":1}`, 2, String.raw`'\'`, "a JSON escape"],
  ])("8: not JSON: %j", async (text, at, got, expected) => {
    const message = await refused(text);
    expect(message).toBe(
      `HEADER_JSON: f: header is not JSON at byte ${at}: got ${got}, expected ${expected}`,
    );
  });

  it("8: a word cut inside a character is not JSON and nothing worse", async () => {
    expect(await refused(`{"w":tru\u00e9}`)).toContain("HEADER_JSON: f: header is not JSON at byte 5");
  });

  it("9: a byte order mark is no white space", async () => {
    const message = await refused("\ufeff{}");
    expect(message).toBe("HEADER_JSON: f: header is not JSON at byte 0: got 0xef, expected a value");
  });

  it("white space before and after the object is accepted, as the format's own reader does", async () => {
    const file = await openAs(safetensors(`\t\r\n ${header('"U8"', "[4]", "[0,4]")} \n\t `, 4));
    expect([...file.tensors.keys()]).toEqual(["w"]);
  });

  it.each([
    ["[]", "array"],
    ["1", "number"],
    [`"x"`, "string"],
    ["null", "null"],
    ["true", "boolean"],
  ])("10: a header that is %s is no object", async (text, got) => {
    expect(await refused(text)).toBe(`HEADER_NOT_OBJECT: f: header must be a JSON object, got ${got}`);
  });

  it.each(["{}x", "{}{}", "{},", "{}]", `{}"`])("11: %s has something after the object", async (text) => {
    const got = text[2];
    expect(await refused(text)).toBe(
      `HEADER_JSON: f: header is not JSON at byte 2: got '${got}', expected the end`,
    );
  });

  it("12: nesting deeper than 8, wherever it begins", async () => {
    const deep = "[".repeat(200_000);
    expect(await refused(deep)).toBe("HEADER_DEPTH: f: header nests deeper than 8 at byte 8");
    expect(await refused(`{"w":${deep}`)).toBe("HEADER_DEPTH: f: header nests deeper than 8 at byte 12");
    expect(await refused(header('"F32"', deep, "[0,4]"))).toContain("HEADER_DEPTH");
    expect(await refused('{"a":'.repeat(200_000))).toBe(
      "HEADER_DEPTH: f: header nests deeper than 8 at byte 40",
    );
  });

  it("12: nesting of exactly 8 in a field that is not read", async () => {
    const file = safetensors(`{"w":{"x":[[[[[[]]]]]],"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`, 4);
    expect((await openAs(file)).tensors.size).toBe(1);
  });

  const bytes = entry('"U8"', "[4]", "[0,4]");
  const float = entry('"F32"', "[1]", "[0,4]");
  it("13: two tensors of one name (the last would win elsewhere)", async () => {
    expect(await refused(`{"w":${bytes},"w":${float}}`)).toBe(
      "DUPLICATE_KEY: f: `w` appears twice, again at byte 53",
    );
  });

  it.each([
    ["`dtype`", `{"w":{"dtype":"U8","dtype":"F32","shape":[1],"data_offsets":[0,4]}}`],
    ["`shape`", `{"w":{"dtype":"U8","shape":[4],"shape":[4],"data_offsets":[0,4]}}`],
    ["`data_offsets`", `{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"data_offsets":[0,4]}}`],
    ["`__metadata__`", `{"__metadata__":{},"__metadata__":{},"w":${bytes}}`],
    ["`k`", `{"__metadata__":{"k":"1","k":"2"},"w":${bytes}}`],
    ["`w`", String.raw`{"w":${bytes},"\u0077":${float}}`],
    ["`é`", String.raw`{"é":${bytes},"\u00e9":${float}}`],
    ["`__proto__`", `{"__proto__":${bytes},"__proto__":${float}}`],
    ["`y`", `{"w":{"x":{"y":1,"y":2},"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`],
  ])("14: %s twice", async (key, text) => {
    expect(await refused(text)).toMatch(
      new RegExp(`^DUPLICATE_KEY: f: ${key} appears twice, again at byte \\d+$`),
    );
  });

  it("15: metadata is an object of strings", async () => {
    const wrong = [
      ["[]", "`__metadata__` must be an object of strings, got array"],
      ["null", "`__metadata__` must be an object of strings, got null"],
      [`{"k":1}`, "value of `k` must be a string, got number"],
      [`{"k":null}`, "value of `k` must be a string, got null"],
      [`{"k":{"a":"b"}}`, "value of `k` must be a string, got object"],
    ];
    for (const [metadata, detail] of wrong) {
      expect(await refused(`{"__metadata__":${metadata},"w":${bytes}}`)).toBe(`METADATA: f: ${detail}`);
    }
  });

  it("46: more keys than any writer makes", async () => {
    const many = Array.from({ length: 500_001 }, (_, index) => `"${index}":""`).join(",");
    expect(await refused(`{"__metadata__":{${many}}}`)).toBe(
      "HEADER_LIMIT: f: header has more than 500000 keys",
    );
  });

  it("47: a long text with an escape in every place", async () => {
    const file = await openAs(safetensors(`{"__metadata__":{"k":"${"\\n".repeat(100_000)}\\ud83d\\ude00"}}`));
    expect(file.metadata.get("k")).toBe(`${"\n".repeat(100_000)}😀`);
  });

  it("48: an entry that is no object", async () => {
    expect(await refused(`{"w":[1]}`)).toBe(
      "FIELD_MISSING: f: `w` must be an object with dtype, shape, data_offsets, got array",
    );
  });
});
