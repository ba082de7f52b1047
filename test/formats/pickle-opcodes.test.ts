import { describe, expect, it } from "vitest";
import { OP } from "../../src/formats/pickle-opcodes.ts";
import {
  dict,
  global,
  int,
  orderedDict,
  type Part,
  storage,
  str,
  tensor,
  tuple,
  u32,
} from "./pickle-assembler.ts";
import { refusal, refusalOf } from "./pickle-reading.ts";

const { MARK, STOP, NONE, REDUCE, EMPTY_DICT, EMPTY_LIST, EMPTY_TUPLE, BUILD } = OP;

describe("bad-inputs section 2: opcodes", () => {
  it.each<[string, string, readonly Part[], number]>([
    ["33: INST", "0x69 INST", [MARK, str("id"), "iposix\nsystem\n"], 10],
    ["34: OBJ", "0x6f OBJ", [MARK, global("torch", "FloatStorage"), "o"], 23],
    ["35: NEWOBJ_EX", "0x92 NEWOBJ_EX", [global("torch", "FloatStorage"), EMPTY_TUPLE, EMPTY_DICT, 0x92], 24],
    ["35: NEWOBJ", "0x81 NEWOBJ", [global("torch", "FloatStorage"), EMPTY_TUPLE, 0x81], 23],
    ["36: EXT1", "0x82 EXT1", [0x82, 1], 2],
    ["36: EXT2", "0x83 EXT2", [0x83, 1, 0], 2],
    ["36: EXT4", "0x84 EXT4", [0x84, 1, 0, 0, 0], 2],
    ["37: PERSID as text", "0x50 PERSID", ["Pstorage\n"], 2],
    ["38: FRAME", "0x95 FRAME", [0x95, 200, "\0\0\0\0\0\0\0"], 2],
    ["39: a pickle in bytes", "0x42 BINBYTES", ["B", u32(4), 0x80, 2, NONE, STOP], 2],
    ["39: a pickle in short bytes", "0x43 SHORT_BINBYTES", ["C\x04", 0x80, 2, NONE, STOP], 2],
    ["40: two PROTO", "0x80 PROTO", [0x80, 2, NONE], 2],
    ["40: PROTO in the middle", "0x80 PROTO", [NONE, 0x80, 2], 3],
    ["31: STACK_GLOBAL", "0x93 STACK_GLOBAL", [str("os"), str("system"), 0x93], 20],
  ])("%s", async (_, opcode, parts, at) => {
    expect(await refusalOf(...parts)).toBe(
      `PICKLE_OPCODE: f.bin: ${opcode} not allowed at byte ${at}: got a foreign opcode, expected only those of torch.save`,
    );
  });
  it("38: FRAME that straddles, in protocol 4 as Python writes it", async () => {
    const message = /^PICKLE_OPCODE: f\.bin: 0x95 FRAME not allowed at byte 2/;
    expect(await refusal(0x80, 4, 0x95, 3, "\0\0\0\0\0\0\0", "cposix\nsystem\n", STOP)).toMatch(message);
  });
  it("every byte that is not on the list is refused before it does anything", async () => {
    const allowed = new Set<number>(Object.values(OP));
    for (let opcode = 0; opcode < 256; opcode++) {
      if (allowed.has(opcode) || opcode === 0x32) continue;
      const message = await refusal(0x80, 2, NONE, opcode, "abc\nabc\n........", STOP);
      expect(message).toMatch(
        new RegExp(`^PICKLE_OPCODE: f\\.bin: 0x${opcode.toString(16).padStart(2, "0")} `),
      );
    }
  });
  it.each([0, 1, 6, 255])("protocol %i is refused", async (version) => {
    expect(await refusal(0x80, version, NONE, STOP)).toMatch(
      new RegExp(`^PICKLE_PROTOCOL: f\\.bin: protocol: got ${version}, expected 2`),
    );
  });
});

describe("bad-inputs section 2: BUILD and REDUCE", () => {
  it.each<[string, readonly Part[], string]>([
    [
      "a storage tag",
      [global("torch", "FloatStorage"), EMPTY_DICT, BUILD],
      "the name torch.FloatStorage as owner",
    ],
    ["a storage", [storage({}), EMPTY_DICT, BUILD], "a storage as owner"],
    ["a plain dict", [EMPTY_DICT, EMPTY_DICT, BUILD], "a dict as owner"],
    ["a tensor", [tensor(), EMPTY_DICT, BUILD], "a tensor as owner"],
    ["an OrderedDict, but with a tuple", [orderedDict(), EMPTY_TUPLE, BUILD], "a tuple"],
    [
      "an OrderedDict, but with __setstate__",
      [orderedDict(), dict({ __setstate__: global("collections", "OrderedDict") }), BUILD],
      "`__setstate__`",
    ],
  ])("41: BUILD on %s", async (_, parts, got) => {
    expect(await refusalOf(...parts)).toContain(`PICKLE_BUILD: f.bin: attributes: got ${got}, expected`);
  });
  it.each<[string, readonly Part[], string]>([
    ["an int", [int(5), EMPTY_TUPLE, REDUCE], "call: got a number"],
    ["a dict", [EMPTY_DICT, EMPTY_TUPLE, REDUCE], "call: got a dict"],
    ["a string", [str("posix system"), EMPTY_TUPLE, REDUCE], "call: got a string"],
    [
      "a storage class",
      [global("torch", "FloatStorage"), EMPTY_TUPLE, REDUCE],
      "call: got torch.FloatStorage",
    ],
    [
      "a function without a tuple",
      [global("collections", "OrderedDict"), NONE, REDUCE],
      "arguments of collections.OrderedDict: got None",
    ],
    [
      "OrderedDict with items",
      [global("collections", "OrderedDict"), tuple(EMPTY_LIST), REDUCE],
      "arguments of collections.OrderedDict: got 1",
    ],
    [
      "a rebuild with too few",
      [global("torch._utils", "_rebuild_tensor_v2"), tuple(storage({})), REDUCE],
      "arguments of torch._utils._rebuild_tensor_v2: got 1, expected 6 or 7",
    ],
    [
      "a rebuild of no storage",
      [global("torch._utils", "_rebuild_tensor"), tuple(NONE, NONE, NONE, NONE), REDUCE],
      "data of a tensor: got None",
    ],
    [
      "a rebuild with a list for size",
      [
        global("torch._utils", "_rebuild_tensor"),
        tuple(storage({}), int(0), EMPTY_LIST, EMPTY_TUPLE),
        REDUCE,
      ],
      "size of a tensor: got a list",
    ],
    [
      "a parameter of no tensor",
      [global("torch._utils", "_rebuild_parameter"), tuple(NONE, 0x88, NONE), REDUCE],
      "data of a parameter: got None",
    ],
  ])("42: REDUCE on %s", async (_, parts, got) => {
    expect(await refusalOf(...parts)).toContain(`PICKLE_REDUCE: f.bin: ${got}`);
  });
});
