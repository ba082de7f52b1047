import { describe, expect, it } from "vitest";
import { OP } from "../../src/formats/pickle-opcodes.ts";
import {
  bytes,
  global,
  int,
  type Part,
  storage,
  str,
  type TensorView,
  tensor,
  tuple,
} from "./pickle-assembler.ts";
import { refusalOf } from "./pickle-reading.ts";

const { NONE, EMPTY_TUPLE, BINPERSID } = OP;

describe("bad-inputs section 2: storages and tensors", () => {
  const id = (...items: readonly Part[]) => [tuple(...items), BINPERSID];
  const float = global("torch", "FloatStorage");
  it.each<[string, readonly Part[], string]>([
    ["no tuple", [str("storage"), BINPERSID], "persistent id: got a string, expected a tuple"],
    [
      "another tag",
      id(str("module"), float, str("0"), str("cpu"), int(1)),
      "persistent id: got 5 items, first `module`",
    ],
    ["too few items", id(str("storage"), float, str("0")), "persistent id: got 3 items, first `storage`"],
    ["no items", id(), "persistent id: got 0 items"],
    [
      "a type in text",
      id(str("storage"), str("FloatStorage"), str("0"), str("cpu"), int(1)),
      "type of a storage: got a string",
    ],
    [
      "a type that is no storage",
      id(str("storage"), global("collections", "OrderedDict"), str("0"), str("cpu"), int(1)),
      "type of a storage: got the name collections.OrderedDict",
    ],
    ["numel -1", [storage({ numel: -1 })], "elements of storage `0`: got -1"],
    ["numel 2^60", [storage({ numel: 2n ** 60n })], "elements of storage `0`: got 1152921504606846976"],
    [
      "numel 2^52 of 4 bytes",
      [storage({ numel: 2n ** 52n })],
      "elements of storage `0`: got 4503599627370496",
    ],
    [
      "numel as a float",
      id(str("storage"), float, str("0"), str("cpu"), bytes("G", new Uint8Array(8))),
      "elements of storage `0`: got a float",
    ],
    [
      "numel as a boolean",
      id(str("storage"), float, str("0"), str("cpu"), 0x88),
      "elements of storage `0`: got a boolean",
    ],
    [
      "key ../../x",
      [storage({ key: "../../x" })],
      "key of a storage: got `../../x`, expected decimal digits",
    ],
    ["an empty key", [storage({ key: "" })], "key of a storage: got ``"],
    [
      "key as a number",
      id(str("storage"), float, int(0), str("cpu"), int(1)),
      "key of a storage: got a number",
    ],
    ["no location", id(str("storage"), float, str("0"), NONE, int(1)), "location of storage `0`: got None"],
    [
      "a view",
      id(str("storage"), float, str("0"), str("cpu"), int(1), EMPTY_TUPLE),
      "storage `0`: got a view",
    ],
  ])("58: %s", async (_, parts, what) => {
    expect(await refusalOf(...parts)).toContain(`PICKLE_STORAGE: f.bin: ${what}`);
  });
  it.each<[string, TensorView, string]>([
    [
      "extent beyond the storage",
      { numel: 5 },
      "tensor in storage `0`: got elements [0, 6) as [2,3], expected at most 5",
    ],
    ["offset beyond the storage", { offset: 1 }, "tensor in storage `0`: got elements [1, 7) as [2,3]"],
    [
      "offset of an empty tensor",
      { offset: 7, shape: [0, 3] },
      "tensor in storage `0`: got elements [7, 7) as [0,3]",
    ],
    ["negative offset", { offset: -1 }, "offset of tensor in storage `0`: got -1"],
    ["negative stride", { stride: [-3, 1] }, "stride of a tensor in storage `0`: got -3"],
    ["negative size", { shape: [-2, 3] }, "size of a tensor in storage `0`: got -2"],
    ["size 2^62", { shape: [2n ** 62n, 3] }, "size of a tensor in storage `0`: got 4611686018427387904"],
    [
      "stride that overflows",
      { shape: [2, 3], stride: [Number.MAX_SAFE_INTEGER, 1] },
      "tensor in storage `0`: got elements [0, 9007199254740994)",
    ],
    [
      "expand bomb",
      { shape: [1e9], stride: [0] },
      "stride of tensor in storage `0`: got 0 on an axis of 1000000000",
    ],
    [
      "expand bomb with overlapping strides",
      { shape: [2, 2, 2, 2], stride: [1, 1, 1, 1] },
      "tensor in storage `0`: got elements [0, 5) as [2,2,2,2]",
    ],
    ["more sizes than strides", { stride: [1] }, "tensor in storage `0`: got 2 sizes and 1 strides"],
    ["more strides than sizes", { shape: [] }, "tensor in storage `0`: got 0 sizes and 2 strides"],
    [
      "rank 9",
      { shape: Array(9).fill(1), stride: Array(9).fill(1) },
      "size of a tensor in storage `0`: got 9 axes",
    ],
  ])("59: %s", async (_, view, what) => {
    expect(await refusalOf(tensor(view))).toContain(`TENSOR_BOUNDS: f.bin: ${what}`);
  });
  it("60: one key with two types or two lengths", async () => {
    expect(await refusalOf(tuple(storage({}), storage({ type: "HalfStorage" })))).toContain(
      "STORAGE_SIZE: f.bin: storage `0`: got 6 elements of F16, expected 6 of F32 as before",
    );
    expect(await refusalOf(tuple(storage({}), storage({ numel: 7 })))).toMatch(/^STORAGE_SIZE: /);
  });
});
