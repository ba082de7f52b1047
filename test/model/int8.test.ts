import { readFileSync } from "node:fs";
import process from "node:process";
import { afterAll, describe, expect, it } from "vitest";
import { perplexity } from "../../src/generate/perplexity.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { CACHE_MODES } from "../../src/kv/cache.ts";
import type { WeightDtype } from "../../src/model/expected-tensors.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import type { LinearWeights } from "../../src/model/gpt2-weights.ts";
import type { Table } from "../../src/ops/storage.ts";
import { type Channel, dequantize } from "../../src/quantize.ts";
import { Tensor } from "../../src/tensor.ts";
import { allLogits, lastLogits } from "../golden-check.ts";
import { expectClose } from "../numerics.ts";
import { ROOT } from "../tokenizer/folders.ts";
import { cacheFor, golden, tokensOf } from "./tiny.ts";

// Whole models with weights as bytes: they compute what their bytes stand for, and lose next to nothing by it.

const { QUIRE_TEST_ADAPTER: adapter = "auto", QUIRE_TEST_KERNELS } = process.env;
const kernels = QUIRE_TEST_KERNELS === "portable" ? "portable" : "auto";
const gpu = await Gpu.open({ adapter, kernels, profile: "fast" });
afterAll(() => gpu.close());

/** The model with every byte replaced by the f32 nearest to what it stands for. */
async function widened({ config, weights }: Gpt2): Promise<Gpt2> {
  const wide = async (bytes: Tensor, channel: Channel, scales: Float32Array) => {
    const { shape, cols } = bytes;
    const values = dequantize(Int8Array.from(await bytes.read()), cols, channel, scales);
    return Tensor.from(gpu, shape, values);
  };
  const table = async ({ blocks, scales }: Table): Promise<Table> => {
    const all = await scales!.read();
    let first = 0;
    const wides: Tensor[] = [];
    for (const block of blocks) {
      wides.push(await wide(block, "row", all.subarray(first, first + block.rows)));
      first += block.rows;
    }
    return { blocks: wides };
  };
  const linear = async ({ weight, bias }: LinearWeights): Promise<LinearWeights> => {
    const both = await bias.read();
    const own = Tensor.from(gpu, [1, weight.cols], both.subarray(0, weight.cols));
    return { weight: await wide(weight, "column", both.subarray(weight.cols)), bias: own };
  };
  const copy = async (norm: Tensor) => Tensor.from(gpu, norm.shape, await norm.read());
  const blocks = weights.blocks.map(async (b) => ({
    ln1: await copy(b.ln1),
    attention: await linear(b.attention),
    attentionProjection: await linear(b.attentionProjection),
    ln2: await copy(b.ln2),
    fc: await linear(b.fc),
    fcProjection: await linear(b.fcProjection),
  }));
  const wte = await table(weights.wte);
  return new Gpt2(gpu, config, {
    wte,
    wpe: await table(weights.wpe),
    blocks: await Promise.all(blocks),
    lnF: await copy(weights.lnF),
    head: weights.head === weights.wte ? wte : await table(weights.head),
  });
}

describe.each(["tiny", "tiny-erf-untied"])("%s as int8", (name) => {
  it.each([
    ["whole", undefined],
    ["in blocks of 50 rows", 50 * 48],
  ])("gives the logits of the weights that its bytes stand for, tables %s", async (_, maxBlockBytes) => {
    const model = await Gpt2.load(gpu, golden(name), { dtype: "int8", maxBlockBytes });
    const wide = await widened(model);
    const ids = tokensOf(7, 40);
    // numerics.md, whole model in f32.
    expectClose(await allLogits(model, "none", ids), await allLogits(wide, "none", ids), {
      nmse: 1e-9,
      maxAbs: 1e-3,
    });
    wide.free();
    model.free();
  });

  it("gives the same bits in every mode", async () => {
    const model = await Gpt2.load(gpu, golden(name), { dtype: "int8" });
    const prompts = [tokensOf(1, 30), tokensOf(2, 1), tokensOf(3, 17)];
    const none = await lastLogits(model, "none", prompts);
    for (const mode of CACHE_MODES) expect(await lastLogits(model, mode, prompts)).toEqual(none);
    model.free();
  });
});

// Whole first windows of 1,024 tokens, 2026-11-23: 1.0007 in English, 0.9995 in Chinese.
it.each(["en", "zh"])(
  "int8 costs novels-%s at most 1 % of perplexity",
  { timeout: 120_000 },
  async (language) => {
    const file = readFileSync(golden(`novels-${language}.json`), "utf8");
    const ids = (JSON.parse(file) as { perplexity: { ids: number[] } }).perplexity.ids.slice(0, 257);
    const measure = async (dtype: WeightDtype) => {
      const model = await Gpt2.load(gpu, `${ROOT}/weights/novels-${language}`, { dtype });
      const cache = cacheFor(gpu, model, "paged", 1);
      const result = await perplexity(model, cache, ids);
      cache.free();
      model.free();
      return result.perplexity;
    };
    const [f16, int8] = [await measure("f16"), await measure("int8")];
    expect(int8 / f16).toBeLessThanOrEqual(1.01);
    // Other weights, so other numbers: equal ones would mean that the bytes were not used.
    expect(int8).not.toBe(f16);
  },
);
