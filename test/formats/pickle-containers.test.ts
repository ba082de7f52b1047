import { describe, expect, it } from "vitest";
import { OP } from "../../src/formats/pickle-opcodes.ts";
import type { PickleValue } from "../../src/formats/pickle-values.ts";
import { dict, int, type Part, str } from "./pickle-assembler.ts";
import { load, refusalOf } from "./pickle-reading.ts";

const { MARK, NONE, REDUCE, EMPTY_DICT, EMPTY_LIST, EMPTY_TUPLE, TUPLE } = OP;

describe("bad-inputs section 2: containers", () => {
  it("43: SETITEMS with an odd count", async () => {
    expect(await refusalOf(EMPTY_DICT, MARK, str("a"), NONE, str("b"), "u")).toBe(
      "PICKLE_SETITEMS: f.bin: keys and values: got 3 in all, expected pairs (at byte 17 of the pickle)",
    );
  });
  it.each<[string, Part]>([
    ["a number", int(1)],
    ["None", NONE],
    ["a list", EMPTY_LIST],
    ["a tuple", EMPTY_TUPLE],
    ["a dict", EMPTY_DICT],
  ])("44: %s as a key", async (got, key) => {
    const message = `PICKLE_SETITEMS: f.bin: key: got ${got}, expected a string`;
    expect(await refusalOf(EMPTY_DICT, MARK, key, NONE, "u")).toContain(message);
    expect(await refusalOf(EMPTY_DICT, key, NONE, "s")).toContain(message);
  });
  it("44: one key twice, or items set in what is no dict", async () => {
    expect(await refusalOf(EMPTY_DICT, MARK, str("w"), NONE, str("w"), NONE, "u")).toMatch(
      /^PICKLE_SETITEMS: f\.bin: key `w`: got it twice/,
    );
    expect(await refusalOf(EMPTY_LIST, str("w"), NONE, "s")).toMatch(
      /^PICKLE_SETITEMS: f\.bin: set item: got a list/,
    );
  });
  it("45: `__proto__` and `constructor` are plain keys", () => {
    const value = load(
      dict([
        ["__proto__", dict({ polluted: 0x88 })],
        ["constructor", NONE],
      ]),
    ) as {
      items: Map<string, PickleValue>;
    };
    expect([...value.items.keys()]).toEqual(["__proto__", "constructor"]);
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
  });
  it.each<[string, readonly Part[], string]>([
    [
      "46: APPEND to a dict",
      [EMPTY_DICT, NONE, "a"],
      "PICKLE_STACK: f.bin: append: got a dict, expected a list",
    ],
    [
      "46: APPENDS to a tuple",
      [EMPTY_TUPLE, MARK, NONE, "e"],
      "PICKLE_STACK: f.bin: append: got a tuple, expected a list",
    ],
    ["47: TUPLE without MARK", [NONE, TUPLE], "PICKLE_STACK: f.bin: stack: got no MARK"],
    ["47: SETITEMS without MARK", [EMPTY_DICT, "u"], "PICKLE_STACK: f.bin: stack: got no MARK"],
    ["48: STOP on an empty stack", [], "PICKLE_STACK: f.bin: stack: got no value"],
    ["48: TUPLE2 of one value", [NONE, 0x86], "PICKLE_STACK: f.bin: stack: got no value"],
    ["48: REDUCE of one value", [NONE, REDUCE], "PICKLE_STACK: f.bin: stack: got no value"],
    ["48: a pop below a MARK", [EMPTY_LIST, NONE, MARK, "a"], "PICKLE_STACK: f.bin: stack: got no value"],
    ["48: two values at STOP", [NONE, NONE], "PICKLE_STACK: f.bin: STOP: got more than one value"],
    ["48: an open MARK at STOP", [MARK, NONE], "PICKLE_STACK: f.bin: STOP: got more than one value"],
    ["49: BINGET of an unset memo", ["h\x07"], "PICKLE_MEMO: f.bin: memo 7: got nothing"],
    [
      "49: LONG_BINGET of an unset memo",
      ["j\xff\xff\xff\xff"],
      "PICKLE_MEMO: f.bin: memo 4294967295: got nothing",
    ],
    ["49: BINPUT of nothing", ["q\0"], "PICKLE_STACK: f.bin: stack: got no value"],
    [
      "50: a list in itself",
      [EMPTY_LIST, "q\0h\0a"],
      "PICKLE_CYCLE: f.bin: value: got a list that contains itself",
    ],
    [
      "50: a tuple in a list in it",
      [EMPTY_LIST, "q\0", "h\0", 0x85, "q\x01", "a", "h\x01", 0x86],
      "PICKLE_CYCLE: f.bin: value: got a tuple that contains itself",
    ],
    [
      "50: a dict in itself",
      [EMPTY_DICT, "q\0", str("a"), "h\0s"],
      "PICKLE_CYCLE: f.bin: value: got a dict that",
    ],
  ])("%s", async (_, parts, message) => {
    expect(await refusalOf(...parts)).toContain(message);
  });
});
