import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Gpu } from "../../src/gpu/gpu.ts";
import { CACHE_MODES, type CacheMode } from "../../src/kv/cache.ts";
import { loadConfig } from "../../src/model/config.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { type LinearWeights, type LoadOptions, loadWeights } from "../../src/model/gpt2-weights.ts";
import { add } from "../../src/ops/add.ts";
import { matmul } from "../../src/ops/matmul.ts";
import { matvec } from "../../src/ops/matvec.ts";
import { Tensor } from "../../src/tensor.ts";
import { allLogits, withCache } from "../golden-check.ts";
import { GOLDEN_FOLDER, type GoldenFile, meanKl, readGolden } from "../golden-file.ts";
import { openTestGpu } from "../gpu-fixture.ts";
import { expectClose, matmulTolerance, TOLERANCE } from "../numerics.ts";

// Two-layer models with random weights. Hugging Face wrote down every tensor of one forward pass in float64.

const gpu = await openTestGpu();
const TINY = join(GOLDEN_FOLDER, "tiny");

/** numerics.md, whole model: logits of f32 weights, and of weights or keys and values in half precision. */
const LOGITS = {
  f32: { nmse: 1e-9, maxAbs: 2e-4 },
  f16: { nmse: 1e-4, kl: 1e-4 },
};

const loadFile = async (on: Gpu, path: string, options?: LoadOptions) => {
  const config = await loadConfig(TINY);
  return new Gpt2(on, config, await loadWeights(on, path, config, options));
};

/** The bound for one tensor of the pass, by the last op that made it; `depth` is the K of a product. */
function toleranceOf(name: string, depth: number) {
  if (name === "embed") return TOLERANCE.add.f32;
  if (/ln_(1|2|f)$/.test(name)) return TOLERANCE.layernorm.f32;
  if (name.endsWith("merged")) return TOLERANCE.attention.f32;
  return name === "logits" ? LOGITS.f32 : matmulTolerance(depth, "f32");
}

describe.each(["tiny", "tiny-erf-untied"])("golden/%s: every tensor of the forward pass", (name) => {
  const folder = join(GOLDEN_FOLDER, name);

  it.each(CACHE_MODES)("cache %s", async (mode) => {
    const model = await Gpt2.load(gpu, folder);
    const golden = await readGolden(join(folder, "golden.safetensors"));
    const pass = await tracedPass(model, mode, golden.integers("input_ids"));
    for (let l = 0; l < model.config.layers; l++) {
      // The model adds the block's input to the projection as it is stored: subtract it again, in float64.
      const input = golden.floats(l === 0 ? "embed" : `h.${l - 1}.out`);
      const residual = pass.get(`h.${l}.attn.residual`)!;
      pass.delete(`h.${l}.attn.residual`);
      pass.set(
        `h.${l}.attn.c_proj`,
        residual.map((value, i) => value - input[i]!),
      );
    }
    const hiddenByEpilogues = /mlp\.c_(fc|proj)$/;
    const wanted = golden.names.filter((n) => n !== "input_ids" && !hiddenByEpilogues.test(n));
    expect([...pass.keys()].sort()).toEqual(wanted.sort());
    for (const [n, actual] of pass) {
      const expected = golden.floats(n);
      const { channels, innerChannels } = model.config;
      const depth = n.endsWith("out") ? innerChannels : channels;
      expectClose(actual, expected, toleranceOf(n, depth));
    }
    model.free();
  });

  it("the products that a fused epilogue hides, from their golden inputs, by both forms", async () => {
    const model = await Gpt2.load(gpu, folder);
    const golden = await readGolden(join(folder, "golden.safetensors"));
    for (let l = 0; l < model.config.layers; l++) {
      const { fc, fcProjection, attentionProjection } = model.weights.blocks[l]!;
      for (const form of [matmul, matvec]) {
        const check = (input: string, weights: LinearWeights, output: string) =>
          expectProduct(form, golden, `h.${l}.${input}`, weights, `h.${l}.${output}`);
        await check("ln_2", fc, "mlp.c_fc");
        await check("mlp.act", fcProjection, "mlp.c_proj");
        await check("attn.merged", attentionProjection, "attn.c_proj");
      }
    }
    model.free();
  });
});

/** Every tensor that `forward` shows, and the logits of all rows, by their golden names. */
function tracedPass(model: Gpt2, mode: CacheMode, ids: number[]): Promise<Map<string, Float32Array>> {
  return withCache(model, mode, { expectedLength: ids.length }, async (cache) => {
    const names: string[] = [];
    const reads: Promise<Float32Array>[] = [];
    const hidden = model.hidden(cache, [{ place: cache.open(), tokens: ids }], (name, tensor) => {
      names.push(name);
      reads.push(tensor.read());
    });
    const logits = model.head(hidden);
    names.push("logits");
    reads.push(logits.read());
    const values = await Promise.all(reads);
    hidden.free();
    logits.free();
    return new Map(names.map((name, i) => [name, values[i]!]));
  });
}

async function expectProduct(
  form: typeof matmul,
  golden: GoldenFile,
  input: string,
  { weight, bias }: LinearWeights,
  output: string,
): Promise<void> {
  const values = golden.floats(input);
  const x = Tensor.from(gpu, [values.length / weight.rows, weight.rows], values);
  const y = form(x, weight, bias);
  const expected = golden.floats(output);
  expectClose(await y.read(), expected, matmulTolerance(weight.rows, "f32"));
  x.free();
  y.free();
}

it("the blocks' outputs are their golden parts added up", async () => {
  const golden = await readGolden(join(TINY, "golden.safetensors"));
  const tensor = (name: string) => Tensor.from(gpu, [17, 48], golden.floats(name));
  const parts = [tensor("embed"), tensor("h.0.attn.c_proj"), tensor("h.0.mlp.c_proj")] as const;
  const middle = add(parts[0], parts[1]);
  const out = add(middle, parts[2]);
  // Golden values are themselves rounded to f32, three of them here.
  expectClose(await out.read(), golden.floats("h.0.out"), TOLERANCE.add.f32);
  for (const t of [...parts, middle, out]) t.free();
});

it.each(CACHE_MODES)(
  "a prompt in pieces beside another sequence gives the golden logits: %s",
  async (mode) => {
    const model = await Gpt2.load(gpu, TINY);
    const golden = await readGolden(join(TINY, "golden.safetensors"));
    const ids = golden.integers("input_ids");
    const pieces = [5, 6, 17]; // ends of the pieces: five tokens, one, eleven
    const logits = await withCache(model, mode, { sequences: 2, expectedLength: 64 }, async (cache) => {
      const [place, other] = [cache.open(), cache.open()];
      const reads: Promise<Float32Array>[] = [];
      pieces.forEach((end, i) => {
        const tokens = ids.slice(cache.remembers && i > 0 ? pieces[i - 1] : 0, end);
        const beside = cache.remembers ? [i] : [0, 1, 2].slice(0, i + 1);
        const rows = model.forward(cache, [
          { place: other, tokens: beside },
          { place, tokens },
        ]);
        reads.push(rows.read());
        rows.free();
      });
      return Promise.all(reads);
    });
    const V = model.config.vocabSize;
    pieces.forEach((end, i) => {
      const expected = golden.floats("logits").subarray((end - 1) * V, end * V);
      expectClose(logits[i]!.subarray(V), expected, LOGITS.f32);
    });
    model.free();
  },
);

describe("golden/tiny: every file form", () => {
  const logitsOf = async (path: string, options?: LoadOptions, mode: CacheMode = "paged", kv?: "f16") => {
    const golden = await readGolden(join(TINY, "golden.safetensors"));
    const model = await loadFile(gpu, join(TINY, path), options);
    try {
      return await allLogits(model, mode, golden.integers("input_ids"), kv);
    } finally {
      model.free();
    }
  };
  const goldenLogits = async (precision: "" | "f16." | "bf16.") =>
    (await readGolden(join(TINY, `golden.${precision}safetensors`))).floats("logits");
  const expectRounded = async (actual: Float32Array, golden: Float32Array) => {
    expect(actual).not.toEqual(await logitsOf("model.safetensors"));
    expectClose(actual, golden, { nmse: LOGITS.f16.nmse, maxAbs: Infinity });
    expect(meanKl(actual, golden, 131)).toBeLessThan(LOGITS.f16.kl);
  };

  it.each([
    "model.openai-names.safetensors",
    "sharded",
    "sharded/model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.legacy.bin",
    "sharded-bin",
    "sharded-bin/pytorch_model.bin.index.json",
  ])("%s gives the bits that model.safetensors gives", async (path) => {
    expect(await logitsOf(path)).toEqual(await logitsOf("model.safetensors"));
  });

  describe.each([
    ["model.f16.safetensors", "f16."],
    ["pytorch_model.f16.bin", "f16."],
    ["model.bf16.safetensors", "bf16."],
    ["pytorch_model.bf16.bin", "bf16."],
  ] as const)("%s", (path, precision) => {
    it("widened to f32 gives the logits of the rounded weights", async () => {
      expectClose(await logitsOf(path), await goldenLogits(precision), LOGITS.f32);
    });

    it("kept as f16 gives them too: halves are stored, sums are f32", async () => {
      // A half holds every half, and every bfloat that is not tiny: nothing is rounded here.
      expectClose(await logitsOf(path, { dtype: "f16" }), await goldenLogits(precision), LOGITS.f32);
    });
  });

  it.each(CACHE_MODES)("f32 files rounded to f16 on load, cache %s", async (mode) => {
    await expectRounded(
      await logitsOf("model.safetensors", { dtype: "f16" }, mode),
      await goldenLogits("f16."),
    );
  });

  it.each(CACHE_MODES)("keys and values as f16, with weights of both kinds, cache %s", async (mode) => {
    await expectRounded(await logitsOf("model.safetensors", {}, mode, "f16"), await goldenLogits(""));
    await expectRounded(
      await logitsOf("model.f16.safetensors", { dtype: "f16" }, mode, "f16"),
      await goldenLogits("f16."),
    );
  });

  it("the modes give the same bits", async () => {
    for (const kv of [undefined, "f16"] as const) {
      const [none, contiguous, paged] = await Promise.all(
        CACHE_MODES.map((mode) => logitsOf("model.safetensors", {}, mode, kv)),
      );
      expect(contiguous).toEqual(none);
      expect(paged).toEqual(none);
    }
  });
});
