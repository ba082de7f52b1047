import { join } from "node:path";
import process from "node:process";
import { describe, expect, it } from "vitest";
import { CACHE_MODES, Gpt2, Gpu, generate, makeCache, Sequence, softmax, Tensor } from "../src/index.ts";
import { GOLDEN_FOLDER } from "./golden-file.ts";

// The tour: Quire from opening a GPU to closing it, in five seconds on any machine. Read it top to bottom as an
// introduction; every name in it is public.

const TINY = join(GOLDEN_FOLDER, "tiny"); // a GPT-2 of 2 layers, 48 channels and 131 tokens, with random weights

describe("a tour of Quire", () => {
  it("tensors and ops", async () => {
    // A Gpu is one adapter and device. Without a GPU, "auto" takes the software adapter that npm brought.
    const gpu = await Gpu.open({ adapter: process.env.QUIRE_TEST_ADAPTER ?? "auto" });
    try {
      // A tensor is a shape, a dtype and a range of GPU memory, owned until free().
      const x = Tensor.from(gpu, [2, 3], [0, Math.log(2), Math.log(5), 7, 7, 7]);

      // An op checks shapes, makes its result and records one launch of one WGSL kernel. Nothing has run yet.
      const y = softmax(x);

      // Reading runs what was recorded, then copies the values out.
      const values = await y.read();
      const wanted = [1 / 8, 2 / 8, 5 / 8, 1 / 3, 1 / 3, 1 / 3];
      values.forEach((value, i) => {
        expect(value).toBeCloseTo(wanted[i]!, 6);
      });

      // Every byte is in the ledger, by what it is for. Buffers come in steps of 256 bytes.
      expect(gpu.memory.currentByPurpose.activations).toBe(2 * 256);
      x.free();
      y.free();

      // A wrong call says what was given and what was wanted.
      expect(() => Tensor.from(gpu, [2, 3], [1, 2])).toThrow("tensor: 2 values for shape [2, 3]");
    } finally {
      await gpu.close();
    }
    expect(gpu.memory.current).toBe(0);
  });

  it("a model, and the same tokens from three KV caches", async () => {
    const gpu = await Gpu.open({ adapter: process.env.QUIRE_TEST_ADAPTER ?? "auto" });
    try {
      // config.json and the weights of a folder, as Hugging Face lays it out.
      const model = await Gpt2.load(gpu, TINY);
      const { contextLength } = model.config;

      const texts = new Map<string, readonly number[]>();
      for (const mode of CACHE_MODES) {
        // Where keys and values of past tokens live: nowhere, in a strip of the maximum length, or in pages.
        const cache = makeCache(gpu, model.cacheShape("f32"), {
          mode,
          sequences: 1,
          contextLength,
          expectedLength: 14,
        });
        // A sequence is the tokens of one request. Temperature 0 is greedy: always the most likely token.
        const sequence = new Sequence({
          prompt: [3, 1, 4, 1, 5, 9],
          maxNewTokens: 8,
          contextLength,
          sampling: { temperature: 0, seed: 0 },
          ignoreEos: true,
        });

        // Step 0 computes the prompt. A cache then needs the newest token alone; without one, all are computed again.
        const computed: number[] = [];
        for await (const step of generate(model, cache, [sequence])) computed.push(step.computedTokens);
        const each = mode === "none" ? [6, 7, 8, 9, 10, 11, 12, 13] : [6, 1, 1, 1, 1, 1, 1, 1];
        expect(computed).toEqual(each);
        expect(sequence.finishReason).toBe("length");
        texts.set(mode, sequence.tokens);
        cache.free();
      }
      expect(texts.get("none")).toHaveLength(14);
      expect(texts.get("contiguous")).toEqual(texts.get("none"));
      expect(texts.get("paged")).toEqual(texts.get("none"));

      model.free();
    } finally {
      await gpu.close();
    }
    // The books balance: whatever was taken has been given back.
    expect(gpu.memory.current).toBe(0);
  });
});
