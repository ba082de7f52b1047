import { afterAll, describe, expect, test } from "vitest";
import { Gpu } from "../../src/gpu/gpu.ts";
import { CACHE_MODES } from "../../src/kv/cache.ts";
import { makeCache } from "../../src/kv/make-cache.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { matmul } from "../../src/ops/matmul.ts";
import { matvec } from "../../src/ops/matvec.ts";
import { Tensor } from "../../src/tensor.ts";
import { ROOT } from "../tokenizer/folders.ts";
import { randomFloats } from "../values.ts";

// On a GPU a prompt goes through matmul and a single token through matvec with split sums. The software adapter's own
// sizes would hide a difference, so the GPU's are used here, whatever the adapter is.

const gpu = await Gpu.open({ forms: "gpu", profile: "fast" });
afterAll(() => gpu.close());

describe("matmul and matvec give the same bits", () => {
  test.each([
    { rows: 20, K: 192, N: 72, why: "shares of one and two quads" },
    { rows: 5, K: 67, N: 33, why: "fewer quads than shares, odd depth" },
    { rows: 17, K: 768, N: 64, why: "GPT-2's width" },
  ])("[$rows, $K] x [$K, $N]: $why", async ({ rows, K, N }) => {
    const x = Tensor.from(gpu, [rows, K], randomFloats(1, rows * K));
    const w = Tensor.from(gpu, [K, N], randomFloats(2, K * N));
    const bias = Tensor.from(gpu, [N], randomFloats(3, N));
    for (const epilogue of [undefined, "gelu-tanh", "gelu-erf"] as const) {
      const [many, few] = [matmul(x, w, bias, epilogue), matvec(x, w, bias, epilogue)];
      expect(await many.read()).toEqual(await few.read());
      many.free();
      few.free();
    }
    for (const t of [x, w, bias]) t.free();
  });
});

test("the three modes give the same bits: a prompt of 20 tokens, then 4 one by one", async () => {
  const model = await Gpt2.load(gpu, `${ROOT}/weights/novels-en`);
  const ids = Array.from({ length: 24 }, (_, i) => (i * 997) % model.config.vocabSize);
  const rows: Float32Array[][] = [];
  for (const mode of CACHE_MODES) {
    const cache = makeCache(gpu, model.cacheShape("f32"), {
      mode,
      sequences: 1,
      contextLength: model.config.contextLength,
      expectedLength: ids.length,
      maxSeqLen: ids.length,
    });
    const place = cache.open();
    const steps: Float32Array[] = [];
    for (let end = 20; end <= ids.length; end++) {
      const logits = model.forward(cache, [{ place, tokens: ids.slice(place.length, end) }]);
      steps.push(await logits.read());
      logits.free();
    }
    rows.push(steps);
    cache.free();
  }
  expect(rows[1]).toEqual(rows[0]);
  expect(rows[2]).toEqual(rows[0]);
  model.free();
});
