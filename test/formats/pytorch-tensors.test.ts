import { describe, expect, it } from "vitest";
import type { StoredTensor } from "../../src/formats/tensor-file.ts";
import {
  bytes,
  dict,
  global,
  int,
  list,
  orderedDict,
  type Part,
  pickle,
  str,
  type TensorView,
  tensor,
} from "./pickle-assembler.ts";
import { messageOf, openBin, SIX, torchZip } from "./torch-files.ts";

/** The values of a float32 tensor. */
async function floats(tensor: StoredTensor): Promise<number[]> {
  return [...new Float32Array((await tensor.read()).slice().buffer)];
}

function refusal(...file: readonly Part[]): Promise<string> {
  return messageOf(() => openBin(...file));
}

describe("layouts", () => {
  const view = async (shown: TensorView, storage = SIX) => {
    const numel = storage.length / 4;
    const file = await openBin(torchZip(pickle(dict({ w: tensor({ numel, ...shown }) })), { 0: storage }));
    return file.tensors.get("w")!;
  };
  it("a view begins at its offset", async () => {
    expect(await floats(await view({ offset: 2, shape: [2, 2], stride: [2, 1] }))).toEqual([2, 3, 4, 5]);
  });
  it("a scalar, an empty tensor and axes of length 1 are contiguous whatever their strides", async () => {
    expect(await floats(await view({ offset: 5, shape: [], stride: [] }))).toEqual([5]);
    expect(await floats(await view({ shape: [0, 3], stride: [7, 9] }))).toEqual([]);
    expect(await floats(await view({ shape: [1, 6, 1], stride: [99, 1, 0] }))).toEqual([0, 1, 2, 3, 4, 5]);
  });
  it("a matrix stored by columns is read by rows", async () => {
    expect(await floats(await view({ shape: [2, 3], stride: [1, 2] }))).toEqual([0, 2, 4, 1, 3, 5]);
    expect(await floats(await view({ offset: 1, shape: [2, 2], stride: [1, 2] }))).toEqual([1, 3, 2, 4]);
  });
  it("any range of a transposed matrix is that range of the whole", async () => {
    const [rows, cols] = [7, 5];
    const storage = new Uint8Array(new Float32Array(rows * cols).map((_, i) => i).buffer);
    const tensor = await view({ shape: [rows, cols], stride: [1, rows] }, storage);
    const whole = await tensor.read();
    expect(await floats(tensor)).toEqual(
      Array.from({ length: rows * cols }, (_, i) => (i % cols) * rows + Math.floor(i / cols)),
    );
    for (let begin = 0; begin <= whole.length; begin += 3) {
      for (let end = begin; end <= whole.length; end += 7) {
        expect(await tensor.read(begin, end)).toEqual(whole.slice(begin, end));
      }
    }
  });
  it("a transposed matrix larger than a block is read in blocks", async () => {
    const [rows, cols] = [3000, 700];
    const storage = new Uint8Array(new Float32Array(rows * cols).map((_, i) => i).buffer);
    const tensor = await view({ shape: [rows, cols], stride: [1, rows] }, storage);
    const values = new Float32Array((await tensor.read()).slice().buffer);
    expect(values.every((value, i) => value === (i % cols) * rows + Math.floor(i / cols))).toBe(true);
  });
  it.each<[readonly number[], readonly number[]]>([
    [
      [2, 2],
      [3, 1],
    ],
    [[3], [2]],
    [
      [1, 2, 3],
      [6, 1, 2],
    ],
    [
      [2, 2],
      [1, 1],
    ],
  ])("shape %j with strides %j is refused", async (shape, stride) => {
    expect(await messageOf(() => view({ shape, stride }))).toBe(
      `TENSOR_STRIDE: f.bin: strides of \`w\`: got [${stride}] for shape [${shape}], expected contiguous data or a transposed matrix; save tensor.contiguous()`,
    );
  });
  it.each([
    ["FloatStorage", "F32", 4],
    ["HalfStorage", "F16", 2],
    ["BFloat16Storage", "BF16", 2],
    ["DoubleStorage", "F64", 8],
    ["LongStorage", "I64", 8],
    ["IntStorage", "I32", 4],
    ["ShortStorage", "I16", 2],
    ["CharStorage", "I8", 1],
    ["ByteStorage", "U8", 1],
    ["BoolStorage", "BOOL", 1],
  ] as const)("%s is %s", async (type, dtype, elementBytes) => {
    const shown = tensor({ type, shape: [3, 2], stride: [1, 3] });
    const storage = Uint8Array.from({ length: 6 * elementBytes }, (_, i) => i);
    const { tensors } = await openBin(torchZip(pickle(dict({ w: shown })), { 0: storage }));
    const w = tensors.get("w")!;
    expect([w.dtype, w.shape, w.byteLength]).toEqual([dtype, [3, 2], storage.length]);
    const rows = [0, 3, 1, 4, 2, 5].map((i) => i * elementBytes);
    expect((await w.read()).filter((_, i) => i % elementBytes === 0)).toEqual(Uint8Array.from(rows));
  });
});

describe("bad-inputs section 2: storages of a file", () => {
  it("60: bytes of an entry that do not fit the number of elements, or no entry", async () => {
    const dataPkl = pickle(dict({ w: tensor() }));
    expect(await refusal(torchZip(dataPkl, { 0: new Uint8Array(23) }))).toBe(
      "STORAGE_SIZE: f.bin: storage `0`: got 23 bytes, expected 24 bytes for 6 elements of F32",
    );
    expect(await refusal(torchZip(dataPkl, { 1: SIX }))).toMatch(
      /^STORAGE_SIZE: f\.bin: storage `0`: got no entry/,
    );
  });
  it("60: tensors that share a storage give the same data under each name", async () => {
    const { tensors } = await openBin(torchZip(pickle(dict({ wte: tensor(), head: tensor() }))));
    expect(await tensors.get("wte")!.read()).toEqual(await tensors.get("head")!.read());
  });
});

describe("bad-inputs section 2: roots", () => {
  const w = [["w", tensor()]] as const;
  it.each<[string, Part]>([
    ["a tensor", tensor()],
    ["a list", list(tensor())],
    ["None", "N"],
    ["a string", str("state_dict")],
    ["an empty dict", dict({})],
    ["a dict of `net`", dict({ net: dict(w) })],
    ["a dict of `model`, `state_dict`", dict({ model: dict(w), state_dict: dict(w) })],
    ["a dict of `state_dict`", dict({ state_dict: dict({ model: dict(w) }) })],
    ["a dict of `state_dict`", dict({ state_dict: int(3) })],
  ])("61: %s", async (got, root) => {
    expect(await refusal(torchZip(pickle(root)))).toMatch(/^PICKLE_ROOT: f\.bin: root: got /);
    expect(await refusal(torchZip(pickle(root)))).toContain(`root: got ${got}, expected `);
  });
  it.each(["state_dict", "model", "model_state_dict"])("61: a dict under %s is unwrapped", async (key) => {
    const root = dict({ epoch: int(3), [key]: orderedDict(w), optimizer: dict({ lr: "N" }) });
    const file = await openBin(torchZip(pickle(root)));
    expect([...file.tensors.keys()]).toEqual(["w"]);
    expect([...file.metadata]).toEqual([["wrapper", key]]);
  });
  it("a loss beside the model is not taken for the model", async () => {
    const root = dict({ model: dict({ w: tensor(), b: tensor() }), best_val_loss: tensor() });
    const file = await openBin(torchZip(pickle(root)));
    expect([...file.tensors.keys()]).toEqual(["w", "b"]);
  });
  it("as many tensors beside it as in it are the model", async () => {
    const file = await openBin(torchZip(pickle(dict({ w: tensor(), model: dict({ b: tensor() }) }))));
    expect([...file.tensors.keys()]).toEqual(["w"]);
  });
  it("61: names stay as they are stored, `module.` and `__proto__` too", async () => {
    const names = ["module.transformer.wte.weight", "__proto__", "constructor", "../../x"];
    const file = await openBin(torchZip(pickle(dict(names.map((name) => [name, tensor()] as const)))));
    expect([...file.tensors.keys()]).toEqual(names);
  });
  it("entries that are no tensors are named and left alone", async () => {
    const file = await openBin(torchZip(pickle(dict({ w: tensor(), step: int(7) }))));
    expect([...file.metadata]).toEqual([["ignored", "`step`"]]);
  });
  it("an OrderedDict with _metadata, of parameters, as torch.save(model.state_dict()) writes it", async () => {
    const parameter = bytes(
      global("torch._utils", "_rebuild_parameter"),
      "(",
      tensor(),
      0x88,
      orderedDict(),
      "tR",
    );
    const metadata = dict({ _metadata: orderedDict([["", dict({ version: int(1) })]]) });
    const file = await openBin(torchZip(pickle(orderedDict([["w", parameter]]), metadata, "b")));
    expect(await floats(file.tensors.get("w")!)).toEqual([0, 1, 2, 3, 4, 5]);
  });
});
