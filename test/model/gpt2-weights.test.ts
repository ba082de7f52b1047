import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, test, vi } from "vitest";
import { openCheckpoint } from "../../src/formats/checkpoint.ts";
import { CheckpointError } from "../../src/formats/checkpoint-error.ts";
import type { StoredTensor, TensorFile } from "../../src/formats/tensor-file.ts";
import { OutOfMemory } from "../../src/gpu/errors.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { loadConfig, type ModelConfig } from "../../src/model/config.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { freeWeights, type LoadOptions, loadWeights } from "../../src/model/gpt2-weights.ts";
import { widenStored } from "../../src/model/widen-stored.ts";
import { type Channel, quantize, raiseScales } from "../../src/quantize.ts";
import { safetensors } from "../formats/safetensors-file.ts";
import { openTestGpu } from "../gpu-fixture.ts";
import { cacheFor, golden, TINY, tokensOf } from "./tiny.ts";

vi.mock("../../src/formats/checkpoint.ts", { spy: true });

const gpu = await openTestGpu();
const config = await loadConfig(TINY);
const folder = mkdtempSync(join(tmpdir(), "quire-weights-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeEach(() => {
  vi.mocked(openCheckpoint).mockReset();
});

/** A tensor of a checkpoint in memory. */
interface Entry {
  shape: number[];
  bytes: Uint8Array;
  dtype: string;
}
type Entries = Map<string, Entry>;

/** The tiny model's tensors, to be changed and written again. */
async function tinyEntries(): Promise<Entries> {
  const file = await openCheckpoint(join(TINY, "model.safetensors"));
  const entries: Entries = new Map();
  for (const [name, { shape, dtype, read }] of file.tensors)
    entries.set(name, { shape: [...shape], dtype, bytes: (await read()).slice() });
  await file.close();
  return entries;
}

/** The bytes and scales that a matrix of rows of `cols` is to become. */
function quantized(values: Float32Array, cols: number, channel: Channel) {
  const scales = new Float32Array(channel === "row" ? values.length / cols : cols);
  raiseScales(values, cols, channel, scales);
  return { bytes: quantize(values, cols, channel, scales), scales };
}

let files = 0;

/** Path of a safetensors file with these tensors. */
function write(entries: Entries): string {
  const header: Record<string, object> = {};
  let offset = 0;
  for (const [name, { dtype, shape, bytes }] of entries) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes.length] };
    offset += bytes.length;
  }
  const path = join(folder, `${files++}`, "model.safetensors");
  mkdirSync(join(path, ".."));
  writeFileSync(
    path,
    safetensors(JSON.stringify(header), Buffer.concat([...entries.values()].map((e) => e.bytes))),
  );
  return path;
}

const weightBytes = () => gpu.memory.currentByPurpose.weights;

/** Load, hand over what was loaded, free; the ledger of weights must be back where it was. */
async function withModel<T>(
  path: string,
  options: LoadOptions,
  body: (model: Gpt2) => Promise<T>,
): Promise<T> {
  const before = weightBytes();
  const weights = await loadWeights(gpu, path, config, options);
  try {
    return await body(new Gpt2(gpu, config, weights));
  } finally {
    freeWeights(weights);
    await gpu.finish();
    expect(weightBytes()).toBe(before);
  }
}

async function logitsOf(model: Gpt2): Promise<Float32Array> {
  const cache = cacheFor(gpu, model, "none", 1);
  const logits = model.forward(cache, [{ place: cache.open(), tokens: tokensOf(4, 20) }]);
  try {
    return await logits.read();
  } finally {
    logits.free();
  }
}

/** The CheckpointError with which loading fails; no memory may be left behind. */
async function refusal(path: string, options: LoadOptions = {}): Promise<CheckpointError> {
  const before = weightBytes();
  const error = await loadWeights(gpu, path, config, options).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(CheckpointError);
  await gpu.finish();
  expect(weightBytes()).toBe(before);
  return error as CheckpointError;
}

const expected = await withModel(TINY, {}, logitsOf);

describe("names", () => {
  test("without `transformer.`, mask buffers beside the weights: the same model, without a warning", async () => {
    const onWarning = vi.fn();
    const path = golden("tiny/model.openai-names.safetensors");
    expect(await withModel(path, { onWarning }, logitsOf)).toEqual(expected);
    expect(onWarning).not.toHaveBeenCalled();
  });

  test("a tied head that is stored a second time is not read and not warned of", async () => {
    const entries = await tinyEntries();
    const wte = entries.get("transformer.wte.weight")!;
    entries.set("lm_head.weight", { ...wte, bytes: new Uint8Array(wte.bytes.length).fill(255) });
    const onWarning = vi.fn();
    expect(await withModel(write(entries), { onWarning }, logitsOf)).toEqual(expected);
    expect(onWarning).not.toHaveBeenCalled();
  });

  test("tensors that GPT-2 does not have are named in one warning", async () => {
    const entries = await tinyEntries();
    for (const name of ["value_head.weight", "transformer.h.1.ln_3.bias"])
      entries.set(name, { shape: [2], dtype: "F32", bytes: new Uint8Array(8) });
    const onWarning = vi.fn();
    expect(await withModel(write(entries), { onWarning }, logitsOf)).toEqual(expected);
    expect(onWarning).toHaveBeenCalledOnce();
    expect(onWarning.mock.calls[0]![0]).toMatch(
      /: 2 tensors that GPT-2 does not have are ignored: value_head\.weight, h\.1\.ln_3\.bias$/,
    );
  });
});

describe("what is refused leaves no memory behind", () => {
  test.each(["wte.weight", "h.1.mlp.c_proj.bias", "ln_f.weight"])(
    "without %s: MODEL_MISSING",
    async (name) => {
      const entries = await tinyEntries();
      entries.delete(`transformer.${name}`);
      const error = await refusal(write(entries));
      expect(error.code).toBe("MODEL_MISSING");
      expect(error.message).toMatch(
        new RegExp(`: \`${name}\` is not in the file; GPT-2 needs it, \\[[\\d, ]+\\]$`),
      );
    },
  );

  test("an untied head that is not there: MODEL_MISSING", async () => {
    const untied: ModelConfig = { ...config, tiedHead: false };
    await expect(loadWeights(gpu, TINY, untied)).rejects.toThrow(
      /^MODEL_MISSING: .*`lm_head\.weight` is not in /,
    );
  });

  test.each([
    ["h.1.attn.c_attn.weight", [144, 48], "`h.1.attn.c_attn.weight` is [144, 48], config wants [48, 144]"],
    ["ln_f.bias", [1, 48], "`ln_f.bias` is [1, 48], config wants [48]"],
    ["wpe.weight", [48 * 64], "`wpe.weight` is [3072], config wants [64, 48]"],
  ])("%s of another shape: MODEL_SHAPE", async (name, shape, what) => {
    const entries = await tinyEntries();
    entries.get(`transformer.${name}`)!.shape = shape;
    const error = await refusal(write(entries));
    expect([error.code, error.message.endsWith(what)]).toEqual(["MODEL_SHAPE", true]);
  });

  test("integers for weights: MODEL_DTYPE", async () => {
    const entries = await tinyEntries();
    entries.get("transformer.h.0.ln_1.weight")!.dtype = "I32";
    const error = await refusal(write(entries));
    expect(error.code).toBe("MODEL_DTYPE");
    expect(error.message).toMatch(/`h\.0\.ln_1\.weight` is I32; expected F32, F16, BF16 or F64$/);
  });

  test("a budget too small: OutOfMemory that names the tensor", async () => {
    const small = await Gpu.open({ backend: "null", memoryBudget: 100_000 });
    await expect(loadWeights(small, TINY, config)).rejects.toThrow(OutOfMemory);
    await expect(loadWeights(small, TINY, config)).rejects.toThrow(/buffer h\.0\..*\(weights\)/);
    expect(small.memory.currentByPurpose.weights).toBe(0);
    await small.close();
  });

  test("a device that is lost while the file is read", async () => {
    const doomed = await Gpu.open({ backend: "null" });
    const loading = loadWeights(doomed, TINY, config, {
      onProgress: (done) => {
        if (done > 50_000) doomed.device.destroy();
      },
    });
    await expect(loading).rejects.toThrow("DEVICE_LOST");
    expect(doomed.memory.currentByPurpose.weights).toBe(0);
    await doomed.close();
  });
});

describe("values that are no numbers", () => {
  async function poisoned(): Promise<string> {
    const entries = await tinyEntries();
    const { bytes } = entries.get("transformer.h.1.mlp.c_fc.weight")!;
    const view = new DataView(bytes.buffer);
    view.setFloat32(400, Number.NaN, true);
    view.setFloat32(20_000, Number.NEGATIVE_INFINITY, true);
    return write(entries);
  }
  const what = /^MODEL_NAN: .*`h\.1\.mlp\.c_fc\.weight` has 2 values that are NaN or infinite$/;

  test("are a warning with the tensor and their count", async () => {
    const warnings: string[] = [];
    await withModel(await poisoned(), { onWarning: (w) => warnings.push(w) }, async () => {});
    expect(warnings).toEqual([expect.stringMatching(what)]);
  });

  test("are an error with `strict`", async () => {
    const error = await refusal(await poisoned(), { strict: true });
    expect([error.code, error.message]).toEqual(["MODEL_NAN", expect.stringMatching(what)]);
  });
});

describe("blocks and dtypes", () => {
  test("a table in three blocks gives the same bits as in one", async () => {
    const maxBlockBytes = 50 * 48 * 4;
    await withModel(TINY, { maxBlockBytes }, async (model) => {
      expect(model.weights.wte.blocks.map((block) => block.shape)).toEqual([
        [50, 48],
        [50, 48],
        [31, 48],
      ]);
      expect(model.weights.head).toBe(model.weights.wte);
      expect(await logitsOf(model)).toEqual(expected);
    });
  });

  test("a block boundary that is no multiple of four rows, in halves", async () => {
    const whole = await withModel(TINY, { dtype: "f16" }, logitsOf);
    const split = await withModel(TINY, { dtype: "f16", maxBlockBytes: 33 * 48 * 2 }, logitsOf);
    expect(split).toEqual(whole);
  });

  test("f16 halves the bytes of matrices and embeddings; vectors stay f32", async () => {
    const bytesOf = (model: Gpt2) => {
      const { wte, wpe, blocks, lnF } = model.weights;
      const matrices = blocks.flatMap((b) => [b.attention, b.attentionProjection, b.fc, b.fcProjection]);
      const all = (tensors: readonly { allocation: { bytes: number } }[]) =>
        tensors.reduce((sum, t) => sum + t.allocation.bytes, 0);
      return {
        matrices: all([...wte.blocks, ...wpe.blocks, ...matrices.map((m) => m.weight)]),
        vectors: all([...matrices.map((m) => m.bias), lnF, ...blocks.map((b) => b.ln1)]),
      };
    };
    const f32 = await withModel(TINY, {}, async (model) => bytesOf(model));
    const f16 = await withModel(TINY, { dtype: "f16" }, async (model) => bytesOf(model));
    expect(f16).toEqual({ matrices: f32.matrices / 2, vectors: f32.vectors });
  });

  test("int8: bytes and scales of every row of a table and every column of a matrix, whatever the chunks", async () => {
    const entries = await tinyEntries();
    const floats = (name: string) => {
      const { bytes, dtype } = entries.get(`transformer.${name}`)!;
      return widenStored(bytes, dtype as "F32");
    };
    await withModel(TINY, { dtype: "int8", maxBlockBytes: 50 * 48 }, async (model) => {
      const { wte, wpe, blocks } = model.weights;
      expect(wte.blocks.map((block) => block.shape)).toEqual([
        [50, 48],
        [50, 48],
        [31, 48],
      ]);
      for (const [table, name] of [
        [wte, "wte.weight"],
        [wpe, "wpe.weight"],
      ] as const) {
        const { bytes, scales } = quantized(floats(name), 48, "row");
        const parts = await Promise.all(table.blocks.map((block) => block.read()));
        expect(parts.flatMap((part) => [...part])).toEqual([...bytes]);
        expect(await table.scales!.read()).toEqual(scales);
      }
      const { weight, bias } = blocks[1]!.attention;
      const { bytes, scales } = quantized(floats("h.1.attn.c_attn.weight"), 144, "column");
      expect([weight.dtype, ...(await weight.read())]).toEqual(["i8", ...bytes]);
      expect([...(await bias.read())]).toEqual([...floats("h.1.attn.c_attn.bias"), ...scales]);
      expect(bias.shape).toEqual([2, 144]);
    });
  });

  test("int8: a value that is not finite is told of, and spoils its column alone", async () => {
    const entries = await tinyEntries();
    const { bytes } = entries.get("transformer.h.0.mlp.c_fc.weight")!;
    new DataView(bytes.buffer).setFloat32(4 * (5 * 192 + 7), Number.NaN, true);
    const warnings: string[] = [];
    const options: LoadOptions = { dtype: "int8", onWarning: (w) => warnings.push(w) };
    await withModel(write(entries), options, async (model) => {
      const scales = (await model.weights.blocks[0]!.fc.bias.read()).subarray(192);
      expect([...scales].flatMap((scale, column) => (Number.isFinite(scale) ? [] : column))).toEqual([7]);
    });
    expect(warnings).toEqual([
      expect.stringMatching(/`h\.0\.mlp\.c_fc\.weight` has 1 values that are NaN or infinite$/),
    ]);
  });

  test("at default limits GPT-2 XL's token embedding takes three bindings, in order and nothing missing", async () => {
    const xl: ModelConfig = {
      ...config,
      layers: 1,
      heads: 25,
      channels: 1600,
      headSize: 64,
      innerChannels: 64,
    };
    const big: ModelConfig = { ...xl, vocabSize: 50_257, contextLength: 8 };
    const small = await Gpu.open({ backend: "null", limits: "default" });
    vi.mocked(openCheckpoint).mockResolvedValue(inventedFile(big).file);
    const weights = await loadWeights(small, "invented", big);
    expect(weights.wte.blocks.map((block) => block.rows)).toEqual([20_971, 20_971, 8315]);
    for (const block of weights.wte.blocks) expect(block.bytes).toBeLessThanOrEqual(128 * 2 ** 20);
    await small.close();
  });
});

/** A checkpoint of zeros that exists nowhere, and the size of each read of it. */
function inventedFile({
  channels: C,
  innerChannels: F,
  vocabSize: V,
  contextLength: P,
  layers,
}: ModelConfig) {
  const shapes: Record<string, number[]> = { "wte.weight": [V, C], "wpe.weight": [P, C] };
  for (let l = 0; l < layers; l++) {
    const linears = {
      "attn.c_attn": [C, 3 * C],
      "attn.c_proj": [C, C],
      "mlp.c_fc": [C, F],
      "mlp.c_proj": [F, C],
    };
    for (const [name, shape] of Object.entries(linears)) {
      shapes[`h.${l}.${name}.weight`] = shape;
      shapes[`h.${l}.${name}.bias`] = [shape[1]!];
    }
    for (const norm of ["ln_1", "ln_2"])
      for (const part of ["weight", "bias"]) shapes[`h.${l}.${norm}.${part}`] = [C];
  }
  for (const part of ["weight", "bias"]) shapes[`ln_f.${part}`] = [C];

  const reads: { name: string; begin: number; end: number }[] = [];
  const tensors = new Map<string, StoredTensor>();
  for (const [name, shape] of Object.entries(shapes)) {
    const byteLength = 4 * shape.reduce((a, b) => a * b, 1);
    const read = async (begin = 0, end = byteLength) => {
      reads.push({ name, begin, end });
      return new Uint8Array(end - begin);
    };
    tensors.set(name, { name, dtype: "F32", shape, byteLength, read });
  }
  const close = vi.fn(async () => {});
  const file: TensorFile = { path: "invented", format: "safetensors", tensors, metadata: new Map(), close };
  return { file, reads, close };
}

describe("host memory", () => {
  /** 61 MiB of token embedding; a row of it has 3,000 bytes, which does not divide 16 MiB. */
  const large: ModelConfig = {
    ...config,
    layers: 1,
    heads: 3,
    channels: 750,
    headSize: 250,
    vocabSize: 21_333,
  };
  const CHUNK = 16 * 2 ** 20;

  test("is one chunk at a time: no read above 16 MiB, every byte read once and in order", async () => {
    const small = await Gpu.open({ backend: "null" });
    const { file, reads, close } = inventedFile(large);
    vi.mocked(openCheckpoint).mockResolvedValue(file);
    const progress: [number, number][] = [];
    await loadWeights(small, "invented", large, { onProgress: (...p) => progress.push(p) });
    expect(Math.max(...reads.map((r) => r.end - r.begin))).toBeLessThanOrEqual(CHUNK);
    for (const { name, byteLength } of file.tensors.values()) {
      const own = reads.filter((r) => r.name === name);
      expect(own[0]!.begin).toBe(0);
      expect(own.at(-1)!.end).toBe(byteLength);
      own.slice(1).forEach((read, i) => {
        expect(read.begin).toBe(own[i]!.end);
      });
    }
    const total = [...file.tensors.values()].reduce((sum, t) => sum + t.byteLength, 0);
    expect(progress.at(-1)).toEqual([total, total]);
    expect(progress.every(([done], i) => i === 0 || done >= progress[i - 1]![0])).toBe(true);
    expect(close).toHaveBeenCalledOnce();
    await small.close();
  });

  test("int8 reads matrices twice, a chunk at a time, and the progress says so", async () => {
    const small = await Gpu.open({ backend: "null" });
    const { file, reads } = inventedFile(large);
    vi.mocked(openCheckpoint).mockResolvedValue(file);
    const progress: [number, number][] = [];
    await loadWeights(small, "invented", large, { dtype: "int8", onProgress: (...p) => progress.push(p) });
    expect(Math.max(...reads.map((r) => r.end - r.begin))).toBeLessThanOrEqual(CHUNK);
    const read = reads.reduce((sum, { begin, end }) => sum + end - begin, 0);
    expect(progress.at(-1)).toEqual([read, read]);
    for (const { name, byteLength } of file.tensors.values()) {
      const bytes = reads.filter((r) => r.name === name).reduce((sum, r) => sum + r.end - r.begin, 0);
      const twice = /(attn|mlp)\.c_\w+\.weight$/.test(name);
      expect(bytes, name).toBe(byteLength * (twice ? 2 : 1));
    }
    await small.close();
  });

  test("a row above a chunk is read alone", async () => {
    const wide: ModelConfig = { ...config, layers: 1, heads: 1, channels: 4, innerChannels: 5 * 2 ** 20 };
    const { file, reads } = inventedFile(wide);
    const small = await Gpu.open({ backend: "null" });
    vi.mocked(openCheckpoint).mockResolvedValue(file);
    await loadWeights(small, "invented", wide);
    const rows = reads.filter((r) => r.name === "h.0.mlp.c_fc.weight");
    expect(rows.map((r) => r.end - r.begin)).toEqual(Array(4).fill(20 * 2 ** 20));
    await small.close();
  });

  test("the file is closed after an error too", async () => {
    const { file, close } = inventedFile(large);
    vi.mocked(openCheckpoint).mockResolvedValue(file);
    await expect(loadWeights(gpu, "invented", { ...large, vocabSize: 5 })).rejects.toThrow("MODEL_SHAPE");
    expect(close).toHaveBeenCalledOnce();
  });
});

test("a file with more layers than the config says is refused", async () => {
  const config = { ...(await loadConfig(TINY)), layers: 1 };
  const before = gpu.memory.currentByPurpose.weights;
  await expect(loadWeights(gpu, TINY, config)).rejects.toMatchObject({ code: "MODEL_SHAPE" });
  expect(gpu.memory.currentByPurpose.weights).toBe(before);
});
