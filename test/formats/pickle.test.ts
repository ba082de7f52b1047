import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { unpickle } from "../../src/formats/pickle.ts";
import { OP } from "../../src/formats/pickle-opcodes.ts";
import type { PickleValue } from "../../src/formats/pickle-values.ts";
import {
  bytes,
  dict,
  global,
  int,
  list,
  orderedDict,
  type Part,
  pickle,
  storage,
  str,
  type TensorView,
  tensor,
  tuple,
  u32,
} from "./pickle-assembler.ts";
import { load, refusalOf } from "./pickle-reading.ts";

const { NONE, REDUCE, EMPTY_DICT, EMPTY_LIST, EMPTY_TUPLE, BUILD } = OP;

describe("values", () => {
  it("are plain data", () => {
    const items = list(NONE, 0x88, 0x89, int(-5), "K\xff", "M\xff\xff", int(2n ** 40n), int(-(2n ** 62n)));
    expect(load(items)).toEqual({
      kind: "list",
      items: [null, true, false, -5, 255, 65535, 2 ** 40, -(2n ** 62n)],
    });
    expect(load(tuple(str("gewöhnlich 猫 \ufeff"), EMPTY_TUPLE))).toEqual({
      kind: "tuple",
      items: ["gewöhnlich 猫 \ufeff", { kind: "tuple", items: [] }],
    });
    expect(load(bytes("\x8a\x00"))).toBe(0);
    expect(load(bytes("G", new Uint8Array(8)))).toEqual({ kind: "float" });
    expect(load(bytes(NONE, 0x88, 0x86))).toEqual({ kind: "tuple", items: [null, true] });
    expect(load(bytes(EMPTY_LIST, NONE, "a"))).toEqual({ kind: "list", items: [null] });
  });
  it("in the memo are the same value, not a copy", () => {
    const pair = load(bytes(EMPTY_LIST, "q\x05", "h\x05", 0x86));
    expect(pair).toMatchObject({ kind: "tuple" });
    const items = (pair as { items: PickleValue[] }).items;
    expect(items[0]).toBe(items[1]);
    const long = load(bytes(EMPTY_LIST, "r", u32(4_000_000_000), "j", u32(4_000_000_000), 0x86));
    expect(long).toEqual(pair);
  });
  it("of an OrderedDict keep its order and drop its attributes", () => {
    const metadata = dict({ _metadata: orderedDict([["", dict({ version: int(1) })]]) });
    const root = load(
      bytes(
        orderedDict([
          ["b", NONE],
          ["a", NONE],
        ]),
        metadata,
        BUILD,
      ),
    );
    expect(root).toEqual({
      kind: "dict",
      ordered: true,
      items: new Map([
        ["b", null],
        ["a", null],
      ]),
    });
  });
  it("of a tensor say where its data is", () => {
    const view: TensorView = {
      type: "HalfStorage",
      key: "17",
      numel: 100,
      offset: 40,
      shape: [4, 5],
      stride: [5, 1],
    };
    expect(load(tensor(view))).toEqual({
      kind: "tensor",
      storage: { kind: "storage", key: "17", dtype: "F16", numel: 100 },
      offset: 40,
      shape: [4, 5],
      stride: [5, 1],
      parameter: false,
    });
  });
  it("of two tensors with one key share the storage", () => {
    const both = load(tuple(tensor({ numel: 12 }), tensor({ numel: 12, offset: 6 }))) as {
      items: PickleValue[];
    };
    const [a, b] = both.items as { storage: object }[];
    expect(a!.storage).toBe(b!.storage);
  });
  it("of a parameter and of the oldest form of a tensor", () => {
    const args = [storage({}), int(0), tuple(int(6)), tuple(int(1))];
    const oldest = bytes(global("torch._utils", "_rebuild_tensor"), tuple(...args), REDUCE);
    expect(load(oldest)).toMatchObject({ kind: "tensor", shape: [6], parameter: false });
    const parameter = bytes(
      global("torch._utils", "_rebuild_parameter"),
      tuple(oldest, 0x88, orderedDict()),
      REDUCE,
    );
    expect(load(bytes(parameter, EMPTY_DICT, BUILD))).toMatchObject({ kind: "tensor", parameter: true });
  });
  it("of a tensor may carry no metadata but an empty dict", async () => {
    const args = [storage({}), int(0), tuple(int(6)), tuple(int(1)), 0x89, orderedDict()];
    const v2 = (metadata: Part) =>
      bytes(global("torch._utils", "_rebuild_tensor_v2"), tuple(...args, metadata), REDUCE);
    expect(load(v2(EMPTY_DICT))).toMatchObject({ kind: "tensor" });
    expect(load(v2(NONE))).toMatchObject({ kind: "tensor" });
    expect(await refusalOf(v2(dict({ conj: 0x88 })))).toMatch(
      /^PICKLE_REDUCE: f\.bin: metadata of a tensor: got a dict/,
    );
  });
});

describe("any bytes", () => {
  it("give a value or a CheckpointError, never another error", () => {
    const opcodes = fc.constantFrom<Part>(
      ...Object.values(OP),
      str("w"),
      int(1),
      tensor(),
      "q\0",
      "h\0",
      orderedDict(),
    );
    const program = fc.array(fc.oneof(opcodes, fc.integer({ min: 0, max: 255 })), { maxLength: 60 });
    fc.assert(
      fc.property(program, (parts) => {
        try {
          const { end } = unpickle("f.bin", pickle(...parts));
          return end > 0;
        } catch (error) {
          return error instanceof Error && error.name === "CheckpointError";
        }
      }),
      { numRuns: 3000 },
    );
  });
});
