import { describe, expect, it } from "vitest";
import { unpickleAll } from "../../src/formats/pickle.ts";
import { LIMITS, OP } from "../../src/formats/pickle-opcodes.ts";
import { bytes, dict, type Part, pickle, str, tensor, u32 } from "./pickle-assembler.ts";
import { load, refusal, refusalOf } from "./pickle-reading.ts";
import { messageOf } from "./torch-files.ts";

const { MARK, NONE, EMPTY_DICT, EMPTY_LIST, EMPTY_TUPLE, TUPLE } = OP;

describe("bad-inputs section 2: lengths and limits", () => {
  it("51: a string of 4 GiB in a file of 30 bytes", async () => {
    const file = bytes(0x80, 2, EMPTY_DICT, "X", u32(0xffffffff), "x".repeat(22));
    expect(file.length).toBe(30);
    expect(await refusal(file)).toBe(
      "PICKLE_TRUNCATED: f.bin: string: got 22 bytes to the end, expected 4294967295 (at byte 3 of the pickle)",
    );
  });
  it("52: no STOP, wherever the pickle is cut", async () => {
    const whole = pickle(dict({ w: tensor() }));
    for (let length = 0; length < whole.length; length++) {
      expect(await refusal(whole.subarray(0, length))).toMatch(/^PICKLE_TRUNCATED: f\.bin: /);
    }
  });
  it("53: bytes after STOP", async () => {
    expect(await refusal(pickle(NONE), "abc")).toBe(
      "PICKLE_TRAILING: f.bin: end of pickle: got 3 bytes after STOP at byte 3, expected none",
    );
  });
  it("54: nothing", async () => {
    expect(await refusal()).toMatch(/^PICKLE_TRUNCATED: f\.bin: opcode: got 0 bytes to the end, expected 1/);
  });
  it("55: billion laughs", async () => {
    const levels = Array.from({ length: 15 }, (_, i) =>
      bytes(EMPTY_LIST, "q", i + 1, MARK, ...Array.from({ length: 10 }, () => bytes("h", i)), "e"),
    );
    const bomb = bytes(MARK, EMPTY_LIST, "q\0", ...levels, TUPLE);
    expect(bomb.length).toBe(380);
    expect(await refusalOf(bomb)).toMatch(
      /^PICKLE_LIMIT: f\.bin: value: got more than 1000000 values when written out/,
    );
    const tuples = Array.from({ length: 40 }, (_, i) => bytes("h", i, "h", i, 0x86, "q", i + 1));
    expect(await refusalOf(MARK, NONE, "q\0", ...tuples, TUPLE)).toMatch(/^PICKLE_LIMIT: /);
  });
  it("56: two million opcodes", async () => {
    const puts = new Uint8Array(4_000_000).map((_, i) => (i % 2 === 0 ? OP.BINPUT : 0));
    expect(await refusalOf(NONE, puts)).toMatch(/^PICKLE_LIMIT: f\.bin: opcodes: got more than 1000000/);
  });
  it("57: DUP, as a bomb or once", async () => {
    expect(await refusalOf(NONE, "2".repeat(100_000))).toMatch(
      /^PICKLE_LIMIT: f\.bin: copies by DUP \(0x32\): got one/,
    );
    expect(await refusalOf(NONE, "2", 0x86)).toMatch(/^PICKLE_LIMIT: /);
  });
  it.each<[string, readonly Part[], RegExp]>([
    ["stack", ["N".repeat(LIMITS.stack + 1)], /^PICKLE_LIMIT: f\.bin: stack: /],
    ["MARKs", ["(".repeat(LIMITS.stack + 1)], /^PICKLE_LIMIT: f\.bin: stack: /],
    ["string", [str("x".repeat(LIMITS.stringBytes + 1))], /^PICKLE_LIMIT: f\.bin: string: got 65537 bytes/],
    ["LONG1", [0x8a, 9, "123456789"], /^PICKLE_LIMIT: f\.bin: LONG1: got 9 bytes/],
    ["tuple nesting", [EMPTY_TUPLE, "\x85".repeat(LIMITS.nesting)], /^PICKLE_LIMIT: f\.bin: nesting: /],
    [
      "list nesting",
      ["]".repeat(LIMITS.nesting + 1), "a".repeat(LIMITS.nesting)],
      /^PICKLE_LIMIT: f\.bin: nesting: /,
    ],
    [
      "GLOBAL line",
      ["c", "x".repeat(LIMITS.globalLineBytes + 1), "\ny\n"],
      /^PICKLE_LIMIT: f\.bin: name of a GLOBAL/,
    ],
  ])("one past the limit: %s", async (_, parts, message) => {
    expect(await refusalOf(...parts)).toMatch(message);
  });
  it("one past the limit: memo", async () => {
    const puts = new Uint8Array(5 * (LIMITS.memo + 1));
    const view = new DataView(puts.buffer);
    for (let i = 0; i <= LIMITS.memo; i++) {
      puts[5 * i] = OP.LONG_BINPUT;
      view.setUint32(5 * i + 1, i, true);
    }
    expect(await refusalOf(NONE, puts)).toMatch(/^PICKLE_LIMIT: f\.bin: memo: got more than 100000/);
  });
  it("one past the limit: bytes", async () => {
    const large = new Uint8Array(LIMITS.pickleBytes + 1);
    expect(await messageOf(() => unpickleAll("f.bin", large))).toMatch(
      /^PICKLE_LIMIT: f\.bin: pickle: got 67108865 bytes/,
    );
  });
  it("the limits themselves are allowed", () => {
    expect(load(str("x".repeat(LIMITS.stringBytes)))).toHaveLength(LIMITS.stringBytes);
    expect(load(EMPTY_TUPLE, "\x85".repeat(LIMITS.nesting - 1))).toMatchObject({ kind: "tuple" });
    expect(load(MARK, "N".repeat(LIMITS.stack - 1), TUPLE)).toMatchObject({ kind: "tuple" });
  });
  it("a string that is not UTF-8 is refused where it goes wrong", async () => {
    expect(await refusalOf("X", u32(3), "a\xff\xff")).toMatch(
      /^PICKLE_UTF8: f\.bin: string: got a byte at 8 /,
    );
    // Python would write a lone surrogate like this.
    expect(await refusalOf("X", u32(3), "\xed\xa0\x80")).toMatch(/^PICKLE_UTF8: /);
  });
});
