import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { BadInput } from "../../src/check.ts";
import { inspectCommand } from "../../src/cli/inspect.ts";
import type { Inspection } from "../../src/cli/inspect-model.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { openTestGpu } from "../gpu-fixture.ts";
import { runCommand } from "./run-command.ts";

const golden = (name: string) => fileURLToPath(new URL(`../golden/${name}`, import.meta.url));
const weights = (name: string) => fileURLToPath(new URL(`../../weights/${name}`, import.meta.url));
const inspect = (...args: string[]) => runCommand(inspectCommand, "inspect", ...args);

async function inspection(...args: string[]): Promise<Inspection> {
  const { out } = await inspect(...args, "--json");
  return JSON.parse(out) as Inspection;
}

/** A copy of golden/tiny with some fields of its config changed, and only one form of its weights, or none. */
function changedTiny(fields: object, file?: string): string {
  const folder = mkdtempSync(join(tmpdir(), "quire-inspect-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const config = JSON.parse(readFileSync(join(golden("tiny"), "config.json"), "utf8"));
  writeFileSync(join(folder, "config.json"), JSON.stringify({ ...config, ...fields }));
  if (file) cpSync(join(golden("tiny"), file), join(folder, file));
  return folder;
}

describe("quire inspect", () => {
  it("explains a model without opening a GPU", async () => {
    const open = vi.spyOn(Gpu, "open");
    const { out, error } = await inspect("novels-en", "--memory", "1GiB", "--length", "100");
    expect(error).toBeUndefined();
    expect(open).not.toHaveBeenCalled();
    open.mockRestore();
    expect(out).toContain("GPT-2 with 3,652,608 parameters");
    expect(out).toContain("6 layers of 3 heads with 64 channels each: 192 channels, 768 inside the MLP");
    expect(out).toContain("= 2 · 6 · 3 · 64 · 4 = 9,216 B with --kv-dtype f32");
    expect(out).toContain("a full context of 1,024 tokens: 9.0 MiB");
    expect(out).toMatch(/model\.safetensors +7\.0 MiB/);
    expect(out).toMatch(/all +76 +3,652,608 +F16 +7\.0 MiB +13\.9 MiB/);
    expect(out).toContain("BPE (tokenizer.json); vocabulary of 4,096; begin of text: 0, end of text: 0");
    expect(out).toMatch(/paged +[\d,]+ +7 pages of 16 slots/);
    for (const line of out.split("\n")) expect(line.length).toBeLessThanOrEqual(110);
  });

  it("finds the files and the tokenizer of a PyTorch model, and the second copy of its head", async () => {
    const model = await inspection(weights("novels-zh"), "--dtype", "f16", "--kv-dtype", "f16");
    expect(model.checkpoint).toMatchObject({ format: "pytorch zip", ignored: ["lm_head.weight"], extra: [] });
    expect(model.tokenizer).toEqual({
      kind: "WordPiece (vocab.txt)",
      vocabSize: 6743,
      bosTokenId: null,
      eosTokenId: null,
    });
    expect(model.kv.bytesPerToken).toBe(2 * 6 * 3 * 64 * 2);
    expect(model.problems).toEqual([]);
  });

  it.each([
    ["model.safetensors", "safetensors", 1, []],
    ["model.openai-names.safetensors", "safetensors", 1, ["h.0.attn.bias", "h.1.attn.bias"]],
    ["pytorch_model.f16.bin", "pytorch zip", 1, ["lm_head.weight"]],
    ["pytorch_model.legacy.bin", "pytorch before zip", 1, ["lm_head.weight"]],
    ["sharded", "safetensors", 4, []],
    ["sharded-bin", "pytorch zip", 4, []],
  ])("reads tiny/%s", async (name, format, files, ignored) => {
    const model = await inspection(join(golden("tiny"), name));
    expect(model.checkpoint!.format).toBe(format);
    expect(model.checkpoint!.files).toHaveLength(files);
    expect(model.checkpoint!.files.every(({ bytes }) => bytes > 0)).toBe(true);
    expect(model.checkpoint!.ignored).toEqual(ignored);
    expect(model.parameters).toBe(66_000);
    expect(model.tensors.map((t) => t.storedShape)).toEqual(model.tensors.map((t) => t.shape));
    expect(model.problems).toEqual([]);
  });

  it("--tensors lists every tensor, with its own head where it has one", async () => {
    const { out } = await inspect(golden("tiny-erf-untied"), "--tensors");
    expect(out).toMatch(/name +stored +shape +bytes +GPU +bytes/);
    expect(out).toMatch(/h\.1\.attn\.c_attn\.weight +F32 +\[48, 144\] +27,648 +f32 +27,648/);
    expect(out).toMatch(/lm_head\.weight +F32/);
    expect(out).toContain("output head of its own");
    expect(out).toContain("GELU in its erf form");
  });

  it("counts bytes and scales of int8, which biases and layer norms are not", async () => {
    const model = await inspection(golden("tiny"), "--dtype", "int8");
    const row = (name: string) => model.tensors.find((t) => t.name === name)!;
    expect(row("wte.weight")).toMatchObject({ gpuDtype: "int8", gpuBytes: 131 * 48 + 132 * 4 });
    expect(row("h.0.mlp.c_fc.weight")).toMatchObject({ gpuDtype: "int8", gpuBytes: 48 * 192 + 192 * 4 });
    expect(row("h.0.mlp.c_fc.bias")).toMatchObject({ gpuDtype: "f32", gpuBytes: 192 * 4 });
    const { gpuBytes, dtype } = model.weights;
    expect(dtype).toBe("int8");
    expect(gpuBytes).toBe(model.tensors.reduce((sum, t) => sum + t.gpuBytes, 0));
    const { out } = await inspect(golden("tiny"), "--dtype", "int8", "--memory", "50KB");
    expect(out).toContain("on the GPU with --dtype int8, row padding and scales included");
    expect(out).toMatch(/the weights alone take [\d.]+ KiB$/m);
  });

  it("counts the sequences that fit as the caches would take memory", async () => {
    const memory = 512 * 1024;
    const flags = ["--memory", String(memory), "--length", "20", "--page-size", "8"];
    const { weights: w, kv, prefill, fit } = await inspection(golden("tiny"), ...flags);
    expect(kv.bytesPerToken).toBe(2 * 2 * 3 * 16 * 4);
    // So few that a prompt of 20 tokens is a larger step than a token of each.
    const slots = Math.floor((memory - w.gpuBytes - prefill.total) / kv.bytesPerToken);
    expect(fit!.contiguous).toBe(Math.floor(slots / 64));
    // Three pages of 8 slots each, and the null page.
    expect(fit!.paged).toBe(Math.floor((Math.floor(slots / 8) - 1) / 3));
    expect(fit!.paged).toBeGreaterThan(fit!.contiguous);
  });

  it("says when not even the weights fit, and when keys would need a buffer that GPUs do not bind", async () => {
    const small = await inspect(golden("tiny"), "--memory", "100KB");
    expect(small.error).toBeUndefined();
    expect(small.out).toContain(
      "nothing in 97.7 KiB: the weights alone take 257.8 KiB; --dtype f16 takes half of it, int8 about a quarter",
    );
    const large = await inspect("novels-en", "--memory", "80GB");
    expect(large.out).toMatch(/note: the keys of a layer would be one buffer of \d/);
  });

  it.each([
    ["MODEL_SHAPE", { n_inner: 200 }],
    ["MODEL_MISSING", { n_layer: 3 }],
    ["MODEL_MISSING", { tie_word_embeddings: false }],
    ["MODEL_SHAPE", { vocab_size: 132 }],
  ])("reports %s for %j as loading does, after all that it knows", async (code, fields) => {
    const folder = changedTiny(fields, "model.openai-names.safetensors");
    const path = join(folder, "model.openai-names.safetensors");
    const { out, error } = await inspect(path);
    const gpu = await openTestGpu();
    cpSync(path, join(folder, "model.safetensors"));
    const loading = await Gpt2.load(gpu, folder).catch((thrown: Error) => thrown);
    expect(error).toBeInstanceOf(BadInput);
    expect(error!.message).toBe(
      (loading as Error).message.replace("/model.safetensors", "/model.openai-names.safetensors"),
    );
    expect(error!.message).toMatch(new RegExp(`^${code}: `));
    expect(out).toContain("Problems");
    expect(out).toContain("KV cache");
  });

  it("lists tensors that no GPT-2 has", async () => {
    const model = await inspection(
      join(changedTiny({ n_layer: 1 }, "model.safetensors"), "model.safetensors"),
    );
    expect(model.checkpoint!.extra).toContain("h.1.ln_1.weight");
    expect(model.problems).toMatchObject([
      { code: "MODEL_SHAPE", message: expect.stringContaining("`h.1.") },
    ]);
    expect(model.problems[0]!.message).toContain("is in the file, config has n_layer 1");
  });

  it("works out what a model without weights would take, and then says that it has none", async () => {
    const { out, error } = await inspect(changedTiny({}), "--memory", "1MiB");
    expect(out).toContain("no weights that can be opened");
    expect(out).toMatch(/paged +\d/);
    expect(error!.message).toMatch(/^NO_MODEL_FILE: /);
  });

  it.each([
    [["novels-en", "--length", "1025"], /--length is 1025; wanted at most 1024/],
    [["novels-en", "--length", "0"], /--length is "0"/],
    [["novels-en", "--page-size", "7"], /--page-size is "7"/],
    [["novels-en", "--memory", "lots"], /--memory is "lots"/],
    [["novels-en", "--dtype", "i8"], /--dtype is "i8"; wanted f32, f16, int8/],
    [["no-such-model"], /no-such-model/],
  ])("refuses %j", async (args, message) => {
    const { error, out } = await inspect(...args);
    expect(error).toBeInstanceOf(BadInput);
    expect(error!.message).toMatch(message);
    expect(out).toBe("");
  });

  it("refuses a config that cannot be used", async () => {
    const { error } = await inspect(changedTiny({ n_head: 7 }));
    expect(error!.message).toMatch(/^CONFIG: /);
  });
});
