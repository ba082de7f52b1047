import { copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/formats/checkpoint.ts";
import { gpt2Name, gpt2Tensors } from "../../src/formats/gpt2-names.ts";
import type { StoredTensor, TensorFile } from "../../src/formats/tensor-file.ts";
import { entry, openAs, refusal, safetensors } from "./safetensors-file.ts";

const TINY = fileURLToPath(new URL("../golden/tiny/", import.meta.url));
const WEIGHTS = fileURLToPath(new URL("../../weights/", import.meta.url));
let folder = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "quire-checkpoint-"));
});

afterAll(async () => {
  await rm(folder, { recursive: true });
});

/** All tensors by GPT-2's own names, as float32 values. */
async function values(path: string): Promise<Map<string, Float32Array>> {
  const file = await openCheckpoint(path);
  const found = new Map<string, Float32Array>();
  for (const [name, tensor] of gpt2Tensors(file).tensors) found.set(name, await floats(tensor));
  await file.close();
  return found;
}

async function floats(tensor: StoredTensor): Promise<Float32Array> {
  const { buffer, byteOffset, byteLength } = await tensor.read();
  const view = new DataView(buffer, byteOffset, byteLength);
  if (tensor.dtype === "F32") {
    return Float32Array.from({ length: byteLength / 4 }, (_, index) => view.getFloat32(4 * index, true));
  }
  const widen = tensor.dtype === "BF16" ? bfloat16 : float16;
  expect(["BF16", "F16"]).toContain(tensor.dtype);
  return Float32Array.from({ length: byteLength / 2 }, (_, index) => widen(view.getUint16(2 * index, true)));
}

function bfloat16(bits: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint16(0, bits);
  return view.getFloat32(0);
}

function float16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = (bits & 1023) / 1024;
  return exponent === 0 ? sign * fraction * 2 ** -14 : sign * (1 + fraction) * 2 ** (exponent - 15);
}

function sorted(map: ReadonlyMap<string, unknown>): string[] {
  return [...map.keys()].sort();
}

describe("openCheckpoint: every form of the tiny model holds the same tensors", () => {
  it.each([
    "model.openai-names.safetensors",
    "sharded",
    "sharded/model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.legacy.bin",
    "sharded-bin",
    "sharded-bin/pytorch_model.bin.index.json",
  ])("%s, bit for bit", async (name) => {
    const wanted = await values(join(TINY, "model.safetensors"));
    const got = await values(join(TINY, name));
    expect(wanted.size).toBe(28);
    // A PyTorch file names the tied head a second time.
    for (const [tensor, data] of got) {
      expect(data, tensor).toEqual(wanted.get(tensor === "lm_head.weight" ? "wte.weight" : tensor));
    }
    expect(sorted(got).filter((tensor) => tensor !== "lm_head.weight")).toEqual(sorted(wanted));
  });

  it.each([
    ["model.f16.safetensors", 2 ** -11],
    ["pytorch_model.f16.bin", 2 ** -11],
    ["model.bf16.safetensors", 2 ** -8],
    ["pytorch_model.bf16.bin", 2 ** -8],
  ])("%s, rounded by at most %d of a value", async (name, relative) => {
    const wanted = await values(join(TINY, "model.safetensors"));
    const got = await values(join(TINY, name));
    for (const [tensor, data] of wanted) {
      const rounded = got.get(tensor);
      expect(rounded?.length, tensor).toBe(data.length);
      const worst = data.reduce((most, value, index) => {
        // 2^-25 is half of float16's smallest step, which is all that is left of values near zero.
        const allowed = Math.max(Math.abs(value) * relative, 2 ** -25);
        return Math.max(most, Math.abs((rounded?.[index] ?? Number.NaN) - value) / allowed);
      }, 0);
      expect(worst, tensor).toBeLessThanOrEqual(1);
    }
  });

  it("the folder of a model opens by its best file", async () => {
    const tiny = await openCheckpoint(TINY);
    expect(tiny.path).toBe(join(TINY, "model.safetensors"));
    expect(tiny.format).toBe("safetensors");
    await tiny.close();
    const english = await openCheckpoint(join(WEIGHTS, "novels-en"));
    expect(english.tensors.get("transformer.wte.weight")).toMatchObject({ dtype: "F16", shape: [4096, 192] });
    await english.close();
    const chinese = await openCheckpoint(join(WEIGHTS, "novels-zh"));
    expect(chinese.format).toBe("pytorch");
    expect(gpt2Tensors(chinese).tensors.get("wte.weight")?.shape).toEqual([6743, 192]);
    await chinese.close();
  });
});

describe("openCheckpoint: choosing", () => {
  it("a file of any name opens by its content", async () => {
    for (const [name, format] of [
      ["model.safetensors", "safetensors"],
      ["pytorch_model.bin", "pytorch"],
      ["pytorch_model.legacy.bin", "pytorch"],
    ]) {
      const path = join(folder, `weights-of-${name?.length}`);
      await copyFile(join(TINY, name ?? ""), path);
      const file = await openCheckpoint(path);
      expect(file.format).toBe(format);
      await file.close();
    }
    const misnamed = join(folder, "safe.bin");
    await copyFile(join(TINY, "model.safetensors"), misnamed);
    const file = await openCheckpoint(misnamed);
    expect(file.format).toBe("safetensors");
    await file.close();
  });

  it("38: what calls itself safetensors must be: a zip of that name is not opened as PyTorch's", async () => {
    const path = join(folder, "zip.safetensors");
    await copyFile(join(TINY, "pytorch_model.bin"), path);
    expect(await refusal(openCheckpoint(path))).toBe(
      `WRONG_FORMAT: ${path}: looks like a zip/pytorch file, expected a safetensors file`,
    );
  });

  it.each([
    ["lfs.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS_POINTER"],
    ["lfs.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS_POINTER"],
    ["lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS_POINTER"],
    ["model.gguf", "GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0", "WRONG_FORMAT"],
    ["page.bin", "<!DOCTYPE html><title>404</title>", "WRONG_FORMAT"],
    ["config.json", '{"n_layer": 2}', "WRONG_FORMAT"],
    ["nothing", "", "HEADER_TOO_SMALL"],
  ])("%s is refused", async (name, content, code) => {
    const path = join(folder, name);
    await writeFile(
      path,
      Uint8Array.from(content, (character) => character.charCodeAt(0)),
    );
    expect(await refusal(openCheckpoint(path))).toMatch(new RegExp(`^${code}: .*${name}: `));
  });

  it("a folder without a model says what it holds and what it should", async () => {
    const bare = join(folder, "bare");
    await mkdir(bare);
    const expected =
      "expected one of model.safetensors, model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index.json";
    expect(await refusal(openCheckpoint(bare))).toBe(
      `NO_MODEL_FILE: ${bare}: got an empty folder, ${expected}`,
    );
    await writeFile(join(bare, "weights.gguf"), "");
    expect(await refusal(openCheckpoint(bare))).toBe(
      `NO_MODEL_FILE: ${bare}: got \`weights.gguf\`, ${expected}`,
    );
    for (let index = 0; index < 10; index++) await writeFile(join(bare, String(index)), "");
    expect(await refusal(openCheckpoint(bare))).toContain(
      "got `0`, `1`, `2`, `3`, `4`, `5`, `6`, `7`, …, expected",
    );
  });

  it("39: a path that leads nowhere", async () => {
    expect(await refusal(openCheckpoint(join(folder, "nowhere")))).toMatch(
      /^IO: .*nowhere: cannot read: ENOENT/,
    );
  });

  it.skipIf(process.platform === "win32")("39: a dangling model.safetensors is not passed over", async () => {
    const dangling = join(folder, "dangling");
    await mkdir(dangling);
    await copyFile(join(TINY, "pytorch_model.bin"), join(dangling, "pytorch_model.bin"));
    await symlink("gone", join(dangling, "model.safetensors"));
    expect(await refusal(openCheckpoint(dangling))).toMatch(/^IO: .*model\.safetensors: cannot read: ENOENT/);
  });
});

describe("GPT-2's names", () => {
  function fileOf(...names: string[]): Promise<TensorFile> {
    const entries = names.map((name) => `${JSON.stringify(name)}:${entry('"U8"', "[0]", "[0,0]")}`);
    return openAs(safetensors(`{${entries.join(",")}}`));
  }

  it("lose module. and transformer., once and only in front", () => {
    expect(gpt2Name("wte.weight")).toBe("wte.weight");
    expect(gpt2Name("transformer.h.0.ln_1.bias")).toBe("h.0.ln_1.bias");
    expect(gpt2Name("module.transformer.wte.weight")).toBe("wte.weight");
    expect(gpt2Name("module.lm_head.weight")).toBe("lm_head.weight");
    expect(gpt2Name("x.transformer.wte.weight")).toBe("x.transformer.wte.weight");
  });

  it("44: mask buffers are left out and listed; a bias of a projection is none", async () => {
    const file = await fileOf(
      "transformer.h.0.attn.bias",
      "h.11.attn.masked_bias",
      "h.0.attn.c_attn.bias",
      "h.0.bias",
    );
    const { tensors, ignored } = gpt2Tensors(file);
    expect(ignored).toEqual(["transformer.h.0.attn.bias", "h.11.attn.masked_bias"]);
    expect([...tensors.keys()]).toEqual(["h.0.attn.c_attn.bias", "h.0.bias"]);
  });

  it("the published GPT-2's form has a mask in every layer", async () => {
    const file = await openCheckpoint(join(TINY, "model.openai-names.safetensors"));
    expect(gpt2Tensors(file).ignored.length).toBeGreaterThanOrEqual(2);
    await file.close();
  });

  it("two tensors that become one name are refused", async () => {
    const file = await fileOf("transformer.wte.weight", "wte.weight");
    expect(() => gpt2Tensors(file)).toThrow(
      "NAME_CONFLICT: f: `transformer.wte.weight` and `wte.weight` are both `wte.weight`",
    );
  });
});
