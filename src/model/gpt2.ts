import type { Gpu } from "../gpu/gpu.ts";
import type { CacheShape, KvCache, LayerKv, RememberingCache } from "../kv/cache.ts";
import { embedding } from "../ops/embedding.ts";
import { gatherRows } from "../ops/gather-rows.ts";
import { kvWrite } from "../ops/kv-write.ts";
import { layernorm } from "../ops/layernorm.ts";
import { matmulTransposed } from "../ops/matmul-transposed.ts";
import { scope, type Tensor } from "../tensor.ts";
import { type Batch, type BatchItem, makeBatch, type Rows } from "./batch.ts";
import { promptProducts, tileRowsOf } from "./batch-products.ts";
import { attentionScale, loadConfig, type ModelConfig } from "./config.ts";
import {
  type BlockWeights,
  freeWeights,
  type Gpt2Weights,
  loadWeights,
  type NormWeights,
} from "./gpt2-weights.ts";
import { PRODUCTS, type Products } from "./linear.ts";
import { StepScratch, type StepSize, stepSize } from "./step-scratch.ts";
import type { LoadOptions } from "./tensor-loader.ts";

/** Called with every tensor of a forward pass that exists in memory, under its name in Hugging Face's GPT-2. */
export type Trace = (name: string, tensor: Tensor) => void;

const noTrace: Trace = () => {};

/** Layers between submits of a forward pass: the host takes about as long to record three as the GPU to run a short prompt's. */
const FLUSH_LAYERS = 3;

/** Rows of a step that are computed by the same kernels. */
export interface StepPart {
  readonly rows: Rows;
  /** The forms of x · w + bias. */
  readonly products: Products;
}

/** A block of a step: everything that it needs beside x. */
interface BlockStep {
  readonly weights: BlockWeights;
  readonly layer: number;
  readonly parts: readonly StepPart[];
  readonly step: Batch["step"];
  readonly trace: Trace;
}

/** GPT-2 (Radford et al., Language Models are Unsupervised Multitask Learners, 2019), its weights in GPU memory. */
export class Gpt2 {
  readonly gpu: Gpu;
  readonly config: ModelConfig;
  readonly weights: Gpt2Weights;
  private readonly scratch: StepScratch;

  constructor(gpu: Gpu, config: ModelConfig, weights: Gpt2Weights) {
    this.gpu = gpu;
    this.config = config;
    this.weights = weights;
    this.scratch = new StepScratch(gpu, config);
  }

  /** Load config.json and the weights in `folder`. Throws CheckpointError or OutOfMemory. */
  static async load(gpu: Gpu, folder: string, options: LoadOptions = {}): Promise<Gpt2> {
    const config = await loadConfig(folder);
    return new Gpt2(gpu, config, await loadWeights(gpu, folder, config, options));
  }

  /** What a KV cache of this model holds for a token. */
  cacheShape(dtype: "f32" | "f16"): CacheShape {
    const { layers, heads, headSize } = this.config;
    return { layers, heads, headSize, dtype };
  }

  /**
   * One step of a ragged batch: for each sequence the logits after its last new token, [S, V] f32, to be freed by the
   * caller. Keys and values of the new tokens are in the cache afterwards, if it remembers. After an error the places of
   * the batch may have grown without their keys and values: close them. Steps that are given the same `scratch`, enough for
   * the largest of them, serve one another with their buffers.
   */
  forward(
    cache: KvCache,
    items: readonly BatchItem[],
    trace: Trace = noTrace,
    scratch = stepSize(items),
  ): Tensor {
    return this.run(cache, items, trace, scratch, (x, { lastRows }) => {
      const last = this.norm(gatherRows(x, lastRows), this.weights.lnF); // [S, C]
      trace("ln_f", last);
      return this.head(last);
    });
  }

  /** Like `forward`, but only for what the cache has of it afterwards: the tokens before those whose logits are wanted. */
  fill(cache: RememberingCache, items: readonly BatchItem[], scratch = stepSize(items)): void {
    this.run(cache, items, noTrace, scratch, () => undefined);
  }

  /** Like `forward`, but what comes out of the last layer norm, for every new token: [T, C]. `head` makes it logits. */
  hidden(
    cache: KvCache,
    items: readonly BatchItem[],
    trace: Trace = noTrace,
    scratch = { ...stepSize(items), samples: 0 },
  ): Tensor {
    return this.run(cache, items, trace, scratch, (x) => {
      const out = this.norm(x, this.weights.lnF); // [T, C]
      trace("ln_f", out);
      return out;
    });
  }

  /** Logits [rows, V] of hidden states [rows, C]. */
  head(hidden: Tensor): Tensor {
    return matmulTransposed(hidden, this.weights.head);
  }

  /**
   * What comes out of the last block for the rows of each part, [T, C], before the last layer norm: launches only, for a batch whose
   * arrays lie on the GPU. Parts see the keys and values of one another. The results belong to the scope around the call.
   */
  layers(parts: readonly StepPart[], step: Batch["step"], trace: Trace = noTrace): Tensor[] {
    const { wte, wpe, blocks } = this.weights;
    this.gpu.stage = "embed";
    let xs = parts.map(({ rows }) => embedding(rows.tokenIds, rows.positions, wte, wpe)); // [T, C]
    for (const x of xs) trace("embed", x);
    blocks.forEach((weights, layer) => {
      this.gpu.stage = `layer ${layer}`;
      const ys = scope(this.gpu, () => this.block(xs, { weights, layer, parts, step, trace })); // [T, C]
      for (const x of xs) x.free();
      xs = ys;
      if (this.gpu.forms === "gpu" && layer % FLUSH_LAYERS === 0) this.gpu.flush();
    });
    this.gpu.stage = "head";
    return xs;
  }

  private norm(x: Tensor, weights: NormWeights, dtype?: "f32" | "f16"): Tensor {
    return layernorm(x, weights, this.config.layerNormEpsilon, dtype);
  }

  free(): void {
    freeWeights(this.weights);
  }

  /** `finish` makes of what comes out of the last block, [T, C], what the step is for. */
  private run<T extends Tensor | undefined>(
    cache: KvCache,
    items: readonly BatchItem[],
    trace: Trace,
    scratch: StepSize,
    finish: (x: Tensor, batch: Batch) => T,
  ): T {
    // What was recorded before is not this step's: it runs now, and only the step is dropped when it fails half-way.
    this.gpu.submit();
    try {
      return scope(this.gpu, () => {
        const products = promptProducts(this, cache.shape);
        const batch = makeBatch(this.gpu, this.config, cache, items, {
          tileRows: tileRowsOf(this, products, cache.shape),
          // A recorded step computes what follows a prompt with kernels of its own, whose sums may have another order.
          apart: products !== PRODUCTS,
        });
        const parts = [
          ...(batch.prompt ? [{ rows: batch.prompt, products }] : []),
          ...(batch.rest ? [{ rows: batch.rest, products: PRODUCTS }] : []),
        ];
        const step = () => finish(this.layers(parts, batch.step, trace).at(-1)!, batch);
        return this.scratch.within(scratch, cache, products, step);
      });
    } catch (error) {
      // Half a step must not run with the next one.
      this.gpu.discardRecording();
      throw error;
    } finally {
      this.gpu.stage = "";
    }
  }

  /** x + attention(ln_1(x)), then that + mlp(ln_2(that)), for the rows of each part. */
  private block(xs: readonly Tensor[], step: BlockStep): Tensor[] {
    const middles = scope(this.gpu, () => this.attend(xs, step)); // [T, C]
    return middles.map((middle, i) => scope(this.gpu, () => this.mlp(middle, step.parts[i]!, step))); // [T, C]
  }

  private attend(xs: readonly Tensor[], { weights: w, layer, parts, step, trace }: BlockStep): Tensor[] {
    const scale = attentionScale(this.config, layer);
    const normed = xs.map((x, i) => this.norm(x, w.ln1, parts[i]!.products.rows)); // [T, C]
    const merged = scope(this.gpu, () => this.look(normed, { weights: w, layer, parts, step, trace }, scale)); // [T, C]
    return xs.map((x, i) => {
      const out = parts[i]!.products.linear(merged[i]!, w.attentionProjection, { residual: x }); // [T, C]
      trace(`h.${layer}.ln_1`, normed[i]!);
      trace(`h.${layer}.attn.merged`, merged[i]!);
      trace(`h.${layer}.attn.residual`, out);
      return out;
    });
  }

  /** Query, key and value; then, when those of all parts are stored, attention: the heads side by side. */
  private look(
    normed: readonly Tensor[],
    { weights: w, layer, parts, step, trace }: BlockStep,
    scale: number,
  ) {
    let kv: LayerKv | undefined;
    const queries = parts.map(({ products, rows }, i) => {
      if (products.qkv) {
        kv ??= step.kv(layer);
        return products.qkv(normed[i]!, w.attention, rows.slotMapping, kv); // [T, C]
      }
      const qkv = products.linear(normed[i]!, w.attention); // [T, 3 · C]
      trace(`h.${layer}.attn.c_attn`, qkv);
      kv ??= step.kv(layer);
      kvWrite(qkv, rows.slotMapping, kv.k, kv.v);
      return qkv;
    });
    return parts.map(({ rows }, i) => step.look(kv!, queries[i]!, rows, scale)); // [T, C]
  }

  private mlp(x: Tensor, { products }: StepPart, { weights: w, layer, trace }: BlockStep): Tensor {
    const normed = this.norm(x, w.ln2, products.rows); // [T, C]
    const act = products.linear(normed, w.fc, this.config.activation, products.rows); // [T, F]
    const out = products.linear(act, w.fcProjection, { residual: x }); // [T, C]
    trace(`h.${layer}.ln_2`, normed);
    trace(`h.${layer}.mlp.act`, act);
    trace(`h.${layer}.out`, out);
    return out;
  }
}
