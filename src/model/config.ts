import { join } from "node:path";
import { z } from "zod";
import { checkFields } from "../formats/check-fields.ts";
import { CheckpointError } from "../formats/checkpoint-error.ts";
import { openBytes } from "../formats/file-bytes.ts";
import { JsonReader } from "../formats/json-reader.ts";

/** A GPT-2 of any size. Shape letters: L layers, H heads, C channels, D = C / H, V vocabulary. */
export interface ModelConfig {
  /** L, `n_layer`. */
  readonly layers: number;
  /** H, `n_head`. */
  readonly heads: number;
  /** C, `n_embd`. */
  readonly channels: number;
  /** D = C / H, at most 128. */
  readonly headSize: number;
  /** Width of the MLP's hidden layer: `n_inner`, 4 · C when the file says null. */
  readonly innerChannels: number;
  /** Positions the model has embeddings for: `n_positions`, or `n_ctx` in older files. */
  readonly contextLength: number;
  /** V: rows of the token embedding, whether or not the tokenizer has a token for each. */
  readonly vocabSize: number;
  /** gelu-tanh is 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))), gelu-erf is 0.5 x (1 + erf(x / √2)). */
  readonly activation: "gelu-tanh" | "gelu-erf";
  readonly layerNormEpsilon: number;
  /** Attention scores are multiplied by 1 / √D. */
  readonly scaleAttentionWeights: boolean;
  /** Attention scores of layer i (from 0) are also divided by i + 1. */
  readonly scaleByInverseLayer: boolean;
  /** The output head is the token embedding; otherwise the checkpoint holds its own `lm_head.weight`. */
  readonly tiedHead: boolean;
  readonly bosTokenId?: number;
  /** Generation stops at any of these; empty when the model has none. */
  readonly eosTokenIds: readonly number[];
}

const CODE = "CONFIG";
/** GPT-2's own config.json has 665 bytes; label lists make some reach a few hundred KB. */
export const MAX_CONFIG_BYTES = 1 << 20;
/** Largest head that the attention kernels have room for. */
const MAX_HEAD_SIZE = 128;
/** What transformers' GPT2Config takes when the file does not name the token: `<|endoftext|>` of the English GPT-2. */
const DEFAULT_END_OF_TEXT = 50256;
const JSON_CODES = { utf8: CODE, json: CODE, depth: CODE, duplicate: CODE, limit: CODE };

const ACTIVATIONS = { gelu_new: "gelu-tanh", gelu_pytorch_tanh: "gelu-tanh", gelu: "gelu-erf" } as const;

/** GPT-2 XL has 48 layers of 25 heads and 1,600 channels; the bounds leave an order of magnitude or two. */
const FIELDS = z.looseObject(
  {
    model_type: z.literal("gpt2", { error: "gpt2" }).optional(),
    n_layer: integer(1, 1024),
    n_head: integer(1, 1024),
    n_embd: integer(1, 65_536),
    n_positions: integer(1, 1_048_576).optional(),
    n_ctx: integer(1, 1_048_576).optional(),
    vocab_size: integer(1, 4_194_304),
    n_inner: integer(1, 1_048_576).nullish(),
    activation_function: z
      .enum(["gelu_new", "gelu_pytorch_tanh", "gelu"], { error: "gelu_new, gelu_pytorch_tanh or gelu" })
      .default("gelu_new"),
    layer_norm_epsilon: z
      .number({ error: "a number" })
      .gt(0, { error: "a number above 0" })
      .max(1, { error: "a number up to 1" })
      .default(1e-5),
    scale_attn_weights: flag().default(true),
    scale_attn_by_inverse_layer_idx: flag().default(false),
    // Only the order of scaling and the precision of the scores: with float32 scores the result is the same.
    reorder_and_upcast_attn: flag().optional(),
    tie_word_embeddings: flag().default(true),
    bos_token_id: tokenId().nullish(),
    eos_token_id: z
      .union([tokenId(), z.array(tokenId())], { error: "a token id, a list of token ids or null" })
      .nullish(),
    add_cross_attention: off("false: cross-attention is not supported"),
    is_encoder_decoder: off("false: only decoders are supported"),
    quantization_config: z
      .null({ error: "none: quantized weights are not supported, use the unquantized model" })
      .optional(),
    pruned_heads: z
      .record(z.string(), z.unknown(), { error: "an object" })
      .refine((heads) => Object.keys(heads).length === 0, { error: "{}: pruned heads are not supported" })
      .nullish(),
  },
  { error: "an object with the fields of a GPT-2" },
);

/** Read `config.json` in a model's folder. Throws CheckpointError: CONFIG, or IO when there is no such file. */
export async function loadConfig(folder: string): Promise<ModelConfig> {
  const file = join(folder, "config.json");
  const bytes = await openBytes(file);
  try {
    if (bytes.size > MAX_CONFIG_BYTES) {
      const what = `got a file of ${bytes.size} bytes, expected at most ${MAX_CONFIG_BYTES}`;
      throw new CheckpointError(CODE, file, what);
    }
    return readConfig(await bytes.read(0, bytes.size), file);
  } finally {
    await bytes.close();
  }
}

/** The model that the text of a config.json describes. Throws CheckpointError CONFIG; `file` stands in its message. */
export function parseConfig(text: string, file: string): ModelConfig {
  return readConfig(new TextEncoder().encode(text), file);
}

function readConfig(bytes: Uint8Array, file: string): ModelConfig {
  // JSON.parse would keep the last of two equal keys.
  const json = new JsonReader({ file, what: "config", codes: JSON_CODES }, bytes);
  json.skip();
  json.end();
  const fields = checkFields(FIELDS, JSON.parse(new TextDecoder().decode(bytes)), CODE, file);

  const headSize = fields.n_embd / fields.n_head;
  if (!Number.isInteger(headSize)) {
    const what = `n_embd: got ${fields.n_embd}, expected a multiple of n_head (${fields.n_head})`;
    throw new CheckpointError(CODE, file, what);
  }
  if (headSize > MAX_HEAD_SIZE) {
    const what = `head size: got n_embd / n_head = ${headSize}, expected at most ${MAX_HEAD_SIZE}`;
    throw new CheckpointError(CODE, file, what);
  }
  const contextLength = fields.n_positions ?? fields.n_ctx;
  if (contextLength === undefined) {
    throw new CheckpointError(CODE, file, "n_positions: is missing, expected an integer from 1 to 1048576");
  }

  // An id beyond the vocabulary can never be produced: many files carry GPT-2's 50256 with a smaller vocabulary.
  const inVocabulary = (id: number) => id < fields.vocab_size;
  const bos = fields.bos_token_id === undefined ? DEFAULT_END_OF_TEXT : fields.bos_token_id;
  const eos = fields.eos_token_id === undefined ? DEFAULT_END_OF_TEXT : fields.eos_token_id;
  return {
    layers: fields.n_layer,
    heads: fields.n_head,
    channels: fields.n_embd,
    headSize,
    innerChannels: fields.n_inner ?? 4 * fields.n_embd,
    contextLength,
    vocabSize: fields.vocab_size,
    activation: ACTIVATIONS[fields.activation_function],
    layerNormEpsilon: fields.layer_norm_epsilon,
    scaleAttentionWeights: fields.scale_attn_weights,
    scaleByInverseLayer: fields.scale_attn_by_inverse_layer_idx,
    tiedHead: fields.tie_word_embeddings,
    ...(bos !== null && inVocabulary(bos) ? { bosTokenId: bos } : {}),
    eosTokenIds: [eos ?? []].flat().filter(inVocabulary),
  };
}

/** Factor on the attention scores q · k of a layer (counted from 0). */
export function attentionScale(config: ModelConfig, layer: number): number {
  const byHead = config.scaleAttentionWeights ? 1 / Math.sqrt(config.headSize) : 1;
  return config.scaleByInverseLayer ? byHead / (layer + 1) : byHead;
}

/**
 * Weights of the model, each counted once: a tied head adds nothing.
 * GPT-2's sizes: 124,439,808 (small), 354,823,168, 774,030,080 and 1,557,611,200 (XL).
 */
export function parameterCount(config: ModelConfig): number {
  const { layers, channels, innerChannels, contextLength, vocabSize } = config;
  const layerNorm = 2 * channels;
  const attention = (channels + 1) * 3 * channels + (channels + 1) * channels;
  const mlp = (channels + 1) * innerChannels + (innerChannels + 1) * channels;
  const heads = config.tiedHead ? 1 : 2;
  const embeddings = (heads * vocabSize + contextLength) * channels;
  return embeddings + layers * (2 * layerNorm + attention + mlp) + layerNorm;
}

/** Bytes that the keys and values of one token take: 2 · L · H · D · bytes of an element (4 for f32, 2 for f16). */
export function kvBytesPerToken(config: ModelConfig, bytesPerElement: number): number {
  return 2 * config.layers * config.heads * config.headSize * bytesPerElement;
}

function integer(low: number, high: number) {
  const error = `an integer from ${low} to ${high}`;
  return z.number({ error }).int({ error }).min(low, { error }).max(high, { error });
}

function flag() {
  return z.boolean({ error: "true or false" });
}

/** A feature that this engine does not have: absent, null or false. */
function off(error: string) {
  return z.literal([false, null], { error }).optional();
}

function tokenId() {
  const error = "a token id (an integer from 0) or null";
  return z.number({ error }).int({ error }).min(0, { error });
}
