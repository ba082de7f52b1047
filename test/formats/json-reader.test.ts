import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CheckpointError } from "../../src/formats/checkpoint-error.ts";
import { JsonReader } from "../../src/formats/json-reader.ts";
import { firstInvalidUtf8 } from "../../src/formats/utf8.ts";

const CODES = { utf8: "UTF8", json: "JSON", depth: "DEPTH", duplicate: "DUPLICATE", limit: "LIMIT" };
const ENCODER = new TextEncoder();

function read(text: string): unknown {
  const json = new JsonReader({ file: "f", what: "text", codes: CODES }, ENCODER.encode(text));
  json.skip();
  json.end();
  json.rewind();
  return value(json);
}

function value(json: JsonReader): unknown {
  const kind = json.kind();
  if (kind === "string") return json.string();
  if (kind === "number") return Number(json.number());
  if (kind === "array") {
    const items: unknown[] = [];
    json.array((index) => {
      items[index] = value(json);
    });
    return items;
  }
  if (kind === "object") {
    const members = new Map<string, unknown>();
    json.object((key) => members.set(key, value(json)));
    return Object.fromEntries(members);
  }
  json.skip();
  return kind;
}

/** What `read` makes of a value: true, false and null are only told by kind. */
function expected(parsed: unknown): unknown {
  if (parsed === null) return "null";
  if (typeof parsed === "boolean") return "boolean";
  if (Array.isArray(parsed)) return parsed.map(expected);
  if (typeof parsed !== "object") return parsed;
  return Object.fromEntries(Object.entries(parsed).map(([key, member]) => [key, expected(member)]));
}

function outcome(text: string): string | undefined {
  try {
    read(text);
    return undefined;
  } catch (error) {
    if (error instanceof CheckpointError) return error.code;
    throw error;
  }
}

describe("JsonReader", () => {
  it("reads whatever JSON.stringify writes, as JSON.parse does", () => {
    const json = fc.json({ maxDepth: 6, stringUnit: "binary" });
    fc.assert(
      fc.property(json, (text) => {
        // Halves of surrogate pairs are written as escapes, which this reader refuses.
        fc.pre(!/\\ud[89a-f]/.test(text));
        expect(read(text)).toEqual(expected(JSON.parse(text)));
      }),
      { numRuns: 1000 },
    );
  });

  it("accepts nothing that JSON.parse refuses, and refuses nothing else but with a reason of its own", () => {
    const token = fc.constantFrom(
      ...'{}[],:"\\/ \n\t0123-+.eEabtrufnl',
      "true",
      "null",
      '"a"',
      '"b":',
      "1e5",
      "\\u0041",
      "é",
    );
    fc.assert(
      fc.property(fc.array(token, { maxLength: 12 }), (tokens) => {
        const text = tokens.join("");
        const code = outcome(text);
        let parses = true;
        try {
          JSON.parse(text);
        } catch (error) {
          expect(error).toBeInstanceOf(SyntaxError);
          parses = false;
        }
        if (code === undefined) expect(parses).toBe(true);
        if (code === "JSON") expect(parses).toBe(false);
      }),
      { numRuns: 20_000 },
    );
  });

  it("hands out a number as it is written, so that 2^53 + 1 stays what it is", () => {
    const text = "[9007199254740993,-0,1e400,18446744073709551615]";
    const json = new JsonReader({ file: "f", what: "text", codes: CODES }, ENCODER.encode(text));
    const numbers: string[] = [];
    json.array(() => numbers.push(json.number()));
    expect(numbers).toEqual(["9007199254740993", "-0", "1e400", "18446744073709551615"]);
  });
});

describe("firstInvalidUtf8", () => {
  it("agrees with TextDecoder on what is well-formed", () => {
    const decoder = new TextDecoder("utf-8", { fatal: true });
    const byte = fc.oneof(
      fc.nat(255),
      fc.constantFrom(
        0x7f,
        0x80,
        0xbf,
        0xc0,
        0xc2,
        0xe0,
        0xed,
        0xef,
        0xf0,
        0xf4,
        0xf5,
        0x9f,
        0xa0,
        0x8f,
        0x90,
      ),
    );
    fc.assert(
      fc.property(fc.array(byte, { maxLength: 6 }), (list) => {
        const bytes = Uint8Array.from(list);
        let wellFormed = true;
        try {
          decoder.decode(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(TypeError);
          wellFormed = false;
        }
        const at = firstInvalidUtf8(bytes);
        expect(at === -1).toBe(wellFormed);
        // What stands before the first bad byte is well-formed by itself.
        if (at >= 0) expect(() => decoder.decode(bytes.subarray(0, at))).not.toThrow();
      }),
      { numRuns: 20_000 },
    );
  });

  it("takes every code point and no surrogate", () => {
    for (let codePoint = 0; codePoint <= 0x10ffff; codePoint += 97) {
      if (codePoint >= 0xd800 && codePoint <= 0xdfff) continue;
      expect(firstInvalidUtf8(ENCODER.encode(String.fromCodePoint(codePoint)))).toBe(-1);
    }
  });
});

describe("long strings", () => {
  const mixed = fc.string({
    unit: fc.constantFrom("a".repeat(40), "b", "\n", "\u0001", "é", "中", "😀", '"', "\\", "\ufeff"),
    maxLength: 60,
  });

  it("are the text that JSON.parse makes of them, escaped or not", () => {
    fc.assert(
      fc.property(mixed, fc.boolean(), (text, ascii) => {
        const json = JSON.stringify(text);
        const unitEscape = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
        expect(read(ascii ? json.replace(/[^ -~]/g, unitEscape) : json)).toBe(text);
      }),
    );
  });

  it("may hold more escapes than are gathered at a time", () => {
    const text = "中\n😀".repeat(10_000);
    expect(read(`"${"\\u4e2d\\n\\ud83d\\ude00".repeat(10_000)}"`)).toBe(text);
  });
});
