import { openCheckpoint } from "../formats/checkpoint.ts";
import { gpt2Tensors } from "../formats/gpt2-names.ts";
import type { Gpu } from "../gpu/gpu.ts";
import type { Table } from "../ops/storage.ts";
import type { Tensor } from "../tensor.ts";
import type { ModelConfig } from "./config.ts";
import { expectedTensors, extraLayer, extraLayerProblem, tensorProblem } from "./expected-tensors.ts";
import { type LoadOptions, TensorLoader } from "./tensor-loader.ts";

export type { LoadOptions } from "./tensor-loader.ts";

/** A layer norm's weight, then its bias: [2, C] f32. */
export type NormWeights = Tensor;

export interface LinearWeights {
  /** [K, N] as Conv1D stores it, in the model's dtype. */
  readonly weight: Tensor;
  /** [1, N] f32; [2, N] with the scales of the weight's columns in row 1 when the weight is i8. */
  readonly bias: Tensor;
}

export interface BlockWeights {
  readonly ln1: NormWeights;
  /** [C, 3 · C]: query, key and value side by side. */
  readonly attention: LinearWeights;
  readonly attentionProjection: LinearWeights;
  readonly ln2: NormWeights;
  readonly fc: LinearWeights;
  readonly fcProjection: LinearWeights;
}

/** Every tensor of a GPT-2, in the order in which a token meets them. */
export interface Gpt2Weights {
  /** [V, C] in blocks of rows, each within the device's binding limit. */
  readonly wte: Table;
  /** [P, C], one block. */
  readonly wpe: Table;
  readonly blocks: readonly BlockWeights[];
  readonly lnF: NormWeights;
  /** [V, C] in blocks of rows; wte itself when the head is tied. */
  readonly head: Table;
}

/**
 * Read a checkpoint's weights into GPU memory: a chunk at a time, so that the host never holds a whole tensor.
 *
 * Throws CheckpointError: MODEL_MISSING, MODEL_SHAPE and MODEL_DTYPE before anything is read, with `strict` MODEL_NAN, and
 * all that opening the file can throw; OutOfMemory. After an error no GPU memory is left behind.
 */
export async function loadWeights(
  gpu: Gpu,
  path: string,
  config: ModelConfig,
  options: LoadOptions = {},
): Promise<Gpt2Weights> {
  const file = await openCheckpoint(path);
  let loader: TensorLoader | undefined;
  try {
    const { tensors } = gpt2Tensors(file);
    const expected = expectedTensors(config);
    for (const tensor of expected) {
      const problem = tensorProblem(file.path, tensor, tensors.get(tensor.name));
      if (problem) throw problem;
    }
    const extra = extraLayer(config, tensors.keys());
    if (extra !== undefined) throw extraLayerProblem(file.path, config, extra);
    // A tied head may be stored a second time; it is the token embedding all the same.
    const known = new Set([...expected.map((e) => e.name), "lm_head.weight"]);
    const unknown = [...tensors.keys()].filter((name) => !known.has(name));
    if (unknown.length > 0)
      options.onWarning?.(
        `${file.path}: ${unknown.length} tensors that GPT-2 does not have are ignored: ${unknown.slice(0, 8).join(", ")}`,
      );
    loader = new TensorLoader(gpu, file.path, tensors, expected, options);
    const weights = await loadAll(loader, config);
    await gpu.finish();
    return weights;
  } catch (error) {
    loader?.free();
    throw error;
  } finally {
    await file.close();
  }
}

/** The tensors in the order in which a token meets them. */
async function loadAll(loader: TensorLoader, config: ModelConfig): Promise<Gpt2Weights> {
  const wte = await loader.table("wte.weight", { inBlocks: true });
  const wpe = await loader.table("wpe.weight");
  const blocks: BlockWeights[] = [];
  for (let l = 0; l < config.layers; l++)
    blocks.push({
      ln1: await loader.norm(`h.${l}.ln_1`),
      attention: await loader.linear(`h.${l}.attn.c_attn`),
      attentionProjection: await loader.linear(`h.${l}.attn.c_proj`),
      ln2: await loader.norm(`h.${l}.ln_2`),
      fc: await loader.linear(`h.${l}.mlp.c_fc`),
      fcProjection: await loader.linear(`h.${l}.mlp.c_proj`),
    });
  const lnF = await loader.norm("ln_f");
  const head = config.tiedHead ? wte : await loader.table("lm_head.weight", { inBlocks: true });
  return { wte, wpe, blocks, lnF, head };
}

export function freeWeights({ wte, wpe, blocks, lnF, head }: Gpt2Weights): void {
  const linears = blocks.flatMap((b) => [b.attention, b.attentionProjection, b.fc, b.fcProjection]);
  const norms = [...blocks.flatMap(({ ln1, ln2 }) => [ln1, ln2]), lnF];
  const ofTables = new Set(
    [wte, wpe, head].flatMap(({ blocks, scales }) => [...blocks, scales ?? []]).flat(),
  );
  for (const tensor of [...ofTables, ...norms, ...linears.flatMap(({ weight, bias }) => [weight, bias])])
    tensor.free();
}
