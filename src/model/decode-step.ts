import type { ReplayableRecording } from "../gpu/recording.ts";
import { type KvCache, type RememberingCache, remembers } from "../kv/cache.ts";
import { decodeAttention } from "../ops/decode-attention.ts";
import { embedding } from "../ops/embedding.ts";
import { layernorm, NORM_BYTES } from "../ops/layernorm.ts";
import { matmulTransposed } from "../ops/matmul-transposed.ts";
import { matvec } from "../ops/matvec.ts";
import { mergeBytes } from "../ops/merge-attention.ts";
import { mergeMatvec } from "../ops/merge-matvec.ts";
import { type HeadResult, normHead } from "../ops/norm-head.ts";
import { normMatvec } from "../ops/norm-matvec.ts";
import { normQkv } from "../ops/norm-qkv.ts";
import { rowFits } from "../ops/product.ts";
import { scope, type Tensor } from "../tensor.ts";
import { attentionScale } from "./config.ts";
import type { Gpt2 } from "./gpt2.ts";
import type { BlockWeights } from "./gpt2-weights.ts";
import { type BatchShape, StepState } from "./step-state.ts";

/** Steps in which the longest context of a recording grows. */
const CONTEXT_STEP = 1024;

/**
 * One decode step of S sequences, recorded once and run again and again: each sequence's last token goes through the model,
 * its keys and values into the cache, and the next token is sampled, all without the host. 3 + 5 · L launches on a GPU: 63 for 124M.
 *
 * It computes what Gpt2.forward computes for one new token a sequence, with fused kernels and the same bits.
 */
export class DecodeStep {
  readonly state: StepState;
  readonly recording: ReplayableRecording;

  private constructor(state: StepState, recording: ReplayableRecording) {
    this.state = state;
    this.recording = recording;
  }

  /** Can this model's decode step be recorded with this cache? Otherwise forward does the same, launch by launch. */
  static supports(model: Gpt2, cache: KvCache): cache is RememberingCache {
    const { channels: C, innerChannels: F, heads, headSize, contextLength } = model.config;
    const fits =
      rowFits(model.gpu, C, (3 * C) / 4, NORM_BYTES) &&
      rowFits(model.gpu, C, Math.ceil(F / 4), NORM_BYTES) &&
      rowFits(model.gpu, C, Math.ceil(C / 4), mergeBytes(heads, contextLength));
    return remembers(cache) && headSize % 4 === 0 && fits;
  }

  /** Record the step of a batch. Throws OutOfMemory. */
  static make(model: Gpt2, cache: RememberingCache, shape: BatchShape): DecodeStep {
    // In whole steps, since every length that differs costs pipelines of their own.
    const limit = Math.min(
      model.config.contextLength,
      Math.ceil(shape.maxContext / CONTEXT_STEP) * CONTEXT_STEP,
    );
    const state = new StepState(model.gpu, model.config, cache, { ...shape, maxContext: limit });
    try {
      const recording = model.gpu.record(() => recordStep(model, cache, state, limit));
      return new DecodeStep(state, recording);
    } catch (error) {
      state.free();
      throw error;
    } finally {
      model.gpu.stage = "";
    }
  }

  free(): void {
    this.recording.free();
    this.state.free();
  }
}

function recordStep(model: Gpt2, cache: RememberingCache, state: StepState, maxContext: number): void {
  const { gpu, weights } = model;
  scope(gpu, () => {
    gpu.stage = "embed";
    let x = embedding(state.arrays.row("tokenIds"), state.arrays.row("positions"), weights.wte, weights.wpe); // [S, C]
    weights.blocks.forEach((block, layer) => {
      gpu.stage = `layer ${layer}`;
      const y = scope(gpu, () => recordBlock(model, cache, state, maxContext, x, block, layer)); // [S, C]
      x.free();
      x = y;
    });
    gpu.stage = "head";
    const { logits, bests } = headOf(model, x); // [S, V]
    gpu.stage = "sample";
    state.sample(logits, bests);
    return undefined;
  });
}

/** The last layer norm and the head: one launch on a GPU; on a CPU that plays GPU, which starts one in 20 µs, two are faster. */
function headOf({ gpu, config, weights }: Gpt2, x: Tensor): Partial<HeadResult> & Pick<HeadResult, "logits"> {
  const epsilon = config.layerNormEpsilon;
  if (gpu.forms === "software")
    return { logits: matmulTransposed(layernorm(x, weights.lnF, epsilon), weights.head) };
  return normHead(x, weights.lnF, epsilon, weights.head);
}

/** x + attention(ln_1(x)), then that + mlp(ln_2(that)), in five launches. */
function recordBlock(
  { config }: Gpt2,
  cache: RememberingCache,
  state: StepState,
  maxContext: number,
  x: Tensor,
  w: BlockWeights,
  layer: number,
): Tensor {
  const epsilon = config.layerNormEpsilon;
  const { k, v } = cache.layers[layer]!;
  const [slotMapping, contextLens] = [state.arrays.row("slotMapping"), state.arrays.row("contextLens")];
  const scale = attentionScale(config, layer);
  const q = normQkv(x, w.ln1, epsilon, w.attention.weight, w.attention.bias, slotMapping, k, v); // [S, C]
  const partials = decodeAttention(q, k, v, state.slots, contextLens, maxContext, scale);
  const middle = mergeMatvec(
    partials,
    contextLens,
    w.attentionProjection.weight,
    w.attentionProjection.bias,
    x,
  ); // [S, C]
  const act = normMatvec(middle, w.ln2, epsilon, w.fc.weight, w.fc.bias, config.activation); // [S, F]
  return matvec(act, w.fcProjection.weight, w.fcProjection.bias, { residual: middle }); // [S, C]
}
