import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { CheckpointError } from "../../src/formats/checkpoint-error.ts";
import {
  attentionScale,
  kvBytesPerToken,
  loadConfig,
  parameterCount,
  parseConfig,
} from "../../src/model/config.ts";

const SMALL = { n_layer: 12, n_head: 12, n_embd: 768, n_positions: 1024, vocab_size: 50257 };
const GELU = "gelu_new, gelu_pytorch_tanh or gelu";
const LAYERS = "an integer from 1 to 1024";

function parse(fields: object = {}) {
  return parseConfig(JSON.stringify({ ...SMALL, ...fields }), "m/config.json");
}

function inProject(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url));
}

describe("good files", () => {
  test("the golden models and the trained ones", async () => {
    expect(await loadConfig(inProject("test/golden/tiny"))).toEqual({
      layers: 2,
      heads: 3,
      channels: 48,
      headSize: 16,
      innerChannels: 192,
      contextLength: 64,
      vocabSize: 131,
      activation: "gelu-tanh",
      layerNormEpsilon: 1e-5,
      scaleAttentionWeights: true,
      scaleByInverseLayer: false,
      tiedHead: true,
      bosTokenId: 0,
      eosTokenIds: [0],
    });
    const erf = await loadConfig(inProject("test/golden/tiny-erf-untied"));
    expect([erf.activation, erf.tiedHead]).toEqual(["gelu-erf", false]);
    const en = await loadConfig(inProject("weights/novels-en"));
    const zh = await loadConfig(inProject("weights/novels-zh"));
    expect([en.vocabSize, en.eosTokenIds, parameterCount(en)]).toEqual([4096, [0], 3_652_608]);
    expect([zh.vocabSize, zh.bosTokenId, zh.eosTokenIds, parameterCount(zh)]).toEqual([
      6743,
      2,
      [3],
      4_160_832,
    ]);
  });

  test.each([
    ["small", 12, 12, 768, 124_439_808],
    ["medium", 24, 16, 1024, 354_823_168],
    ["large", 36, 20, 1280, 774_030_080],
    ["XL", 48, 25, 1600, 1_557_611_200],
  ])("GPT-2 %s has its published size", (_, n_layer, n_head, n_embd, parameters) => {
    const config = parse({ n_layer, n_head, n_embd });
    expect(parameterCount(config)).toBe(parameters);
    expect(kvBytesPerToken(config, 4)).toBe(2 * n_layer * n_embd * 4);
    expect(kvBytesPerToken(config, 2)).toBe(2 * n_layer * n_embd * 2);
  });

  test("an untied head is counted, n_inner is honoured", () => {
    expect(parameterCount(parse({ tie_word_embeddings: false }))).toBe(124_439_808 + 50257 * 768);
    expect(parse({ n_inner: 100 }).innerChannels).toBe(100);
    expect(parse({ n_inner: null }).innerChannels).toBe(3072);
    expect(parameterCount(parse({ n_inner: 3071 }))).toBe(124_439_808 - 12 * (2 * 768 + 1));
  });

  test.each([
    ["gelu_new", "gelu-tanh"],
    ["gelu_pytorch_tanh", "gelu-tanh"],
    ["gelu", "gelu-erf"],
    [undefined, "gelu-tanh"],
  ])("activation_function %s is %s", (activation_function, activation) => {
    expect(parse({ activation_function }).activation).toBe(activation);
  });

  test("the scale of attention: by head size, by layer, by both, by none", () => {
    const scale = (scale_attn_weights: boolean, scale_attn_by_inverse_layer_idx: boolean) =>
      attentionScale(parse({ scale_attn_weights, scale_attn_by_inverse_layer_idx }), 3);
    expect([scale(true, false), scale(false, true), scale(true, true), scale(false, false)]).toEqual([
      1 / 8,
      1 / 4,
      1 / 32,
      1,
    ]);
  });

  test("end of text: a number, a list, null, absent, beyond the vocabulary", () => {
    expect(parse({ eos_token_id: 7 }).eosTokenIds).toEqual([7]);
    expect(parse({ eos_token_id: [7, 9] }).eosTokenIds).toEqual([7, 9]);
    expect(parse({ eos_token_id: null, bos_token_id: null })).toMatchObject({ eosTokenIds: [] });
    expect(parse({ bos_token_id: null })).not.toHaveProperty("bosTokenId");
    expect(parse()).toMatchObject({ eosTokenIds: [50256], bosTokenId: 50256 });
    expect(parse({ vocab_size: 21128, eos_token_id: 50256 }).eosTokenIds).toEqual([]);
    expect(parse({ vocab_size: 21128 }).eosTokenIds).toEqual([]);
  });

  test("n_ctx stands in for n_positions; what changes no logit is accepted", () => {
    expect(parse({ n_positions: undefined, n_ctx: 77 }).contextLength).toBe(77);
    expect(parse({ n_ctx: 77 }).contextLength).toBe(1024);
    const harmless = {
      model_type: "gpt2",
      reorder_and_upcast_attn: true,
      add_cross_attention: false,
      is_encoder_decoder: false,
      pruned_heads: {},
      attn_pdrop: 0.1,
      task_specific_params: { "text-generation": { do_sample: true, max_length: 50 } },
    };
    expect(parse(harmless)).toEqual(parse());
  });

  test("head sizes up to 128", () => {
    expect(parse({ n_head: 6 }).headSize).toBe(128);
    expect(parse({ n_head: 1, n_embd: 1 }).headSize).toBe(1);
  });
});

describe("fields that cannot be honoured", () => {
  test.each([
    [{ n_layer: 0 }, `n_layer: got 0, expected ${LAYERS}`],
    [{ n_layer: -1 }, `n_layer: got -1, expected ${LAYERS}`],
    [{ n_layer: 1e9 }, `n_layer: got 1000000000, expected ${LAYERS}`],
    [{ n_layer: 1.5 }, `n_layer: got 1.5, expected ${LAYERS}`],
    [{ n_layer: "12" }, `n_layer: got "12", expected ${LAYERS}`],
    [{ n_layer: undefined }, `n_layer: is missing, expected ${LAYERS}`],
    [{ n_layer: null }, `n_layer: got null, expected ${LAYERS}`],
    [{ n_head: 7 }, "n_embd: got 768, expected a multiple of n_head (7)"],
    [{ n_head: 4 }, "head size: got n_embd / n_head = 192, expected at most 128"],
    [{ n_embd: 2 ** 40 }, "n_embd: got 1099511627776, expected an integer from 1 to 65536"],
    [{ n_positions: 0 }, "n_positions: got 0, expected an integer from 1 to 1048576"],
    [{ n_positions: undefined }, "n_positions: is missing, expected an integer from 1 to 1048576"],
    [{ vocab_size: 0 }, "vocab_size: got 0, expected an integer from 1 to 4194304"],
    [{ n_inner: -3 }, "n_inner: got -3, expected an integer from 1 to 1048576"],
    [{ activation_function: "relu" }, `activation_function: got "relu", expected ${GELU}`],
    [{ activation_function: "silu" }, `activation_function: got "silu", expected ${GELU}`],
    [{ activation_function: null }, `activation_function: got null, expected ${GELU}`],
    [{ layer_norm_epsilon: 0 }, "layer_norm_epsilon: got 0, expected a number above 0"],
    [{ layer_norm_epsilon: "1e-5" }, 'layer_norm_epsilon: got "1e-5", expected a number'],
    [{ scale_attn_weights: 1 }, "scale_attn_weights: got 1, expected true or false"],
    [{ tie_word_embeddings: "no" }, 'tie_word_embeddings: got "no", expected true or false'],
    [{ eos_token_id: "x" }, 'eos_token_id: got "x", expected a token id, a list of token ids or null'],
    [{ eos_token_id: [3, -2] }, "eos_token_id.1: got -2, expected a token id"],
    [{ bos_token_id: 0.5 }, "bos_token_id: got 0.5, expected a token id"],
    [{ model_type: "llama" }, 'model_type: got "llama", expected gpt2'],
    [
      { add_cross_attention: true },
      "add_cross_attention: got true, expected false: cross-attention is not supported",
    ],
    [
      { is_encoder_decoder: true },
      "is_encoder_decoder: got true, expected false: only decoders are supported",
    ],
    [
      { quantization_config: { bits: 4 } },
      'quantization_config: got {"bits":4}, expected none: quantized weights',
    ],
    [
      { pruned_heads: { 1: [2] } },
      'pruned_heads: got {"1":[2]}, expected {}: pruned heads are not supported',
    ],
  ])("%j", (fields, message) => {
    expect(() => parse(fields)).toThrow(`CONFIG: m/config.json: ${message}`);
  });
});

describe("files that are no configuration", () => {
  test.each([
    ["", "config is not JSON at byte 0: got the end"],
    ["{", "config is not JSON at byte 1: got the end"],
    ['{"n_layer": 12,}', "config is not JSON at byte 15: got '}'"],
    ['{"n_layer": NaN}', "config is not JSON at byte 12: got 'N'"],
    ['{"n_layer": 1, "n_layer": 2}', "`n_layer` appears twice, again at byte 15"],
    ['{"n_layer": 1e999}', `n_layer: got Infinity, expected ${LAYERS}`],
    ["[]", "the file: got [], expected an object with the fields of a GPT-2"],
    ["null", "the file: got null, expected an object with the fields of a GPT-2"],
    ["12", "the file: got 12, expected an object with the fields of a GPT-2"],
  ])("%s", (text, message) => {
    const failing = () => parseConfig(text, "m/config.json");
    expect(failing).toThrow(CheckpointError);
    expect(failing).toThrow(`CONFIG: m/config.json: ${message}`);
  });

  test("a gigabyte is refused before it is read, a missing file by its name", async () => {
    const folder = await mkdtemp(join(tmpdir(), "quire-config-"));
    try {
      await expect(loadConfig(folder)).rejects.toThrow(CheckpointError);
      await expect(loadConfig(folder)).rejects.toThrow(join(folder, "config.json"));
      await writeFile(join(folder, "config.json"), "");
      // Sparse: takes no room on the disk.
      await truncate(join(folder, "config.json"), 2 ** 30);
      await expect(loadConfig(folder)).rejects.toThrow(
        "got a file of 1073741824 bytes, expected at most 1048576",
      );
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
