import { openCheckpoint } from "../formats/checkpoint.ts";
import { gpt2Tensors } from "../formats/gpt2-names.ts";
import type { Gpu } from "../gpu/gpu.ts";
import type { Tensor } from "../tensor.ts";
import type { ModelConfig } from "./config.ts";
import { expectedTensors, extraLayer, extraLayerProblem, tensorProblem } from "./expected-tensors.ts";
import { type LoadOptions, TensorLoader } from "./tensor-loader.ts";

export type { LoadOptions } from "./tensor-loader.ts";

/** Weight and bias of a layer norm, [C] f32. */
export interface NormWeights {
  readonly weight: Tensor;
  readonly bias: Tensor;
}

/** Weight [K, N] as Conv1D stores it, in the model's dtype, and bias [N] f32. */
export interface LinearWeights {
  readonly weight: Tensor;
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
  readonly wte: readonly Tensor[];
  /** [P, C]. */
  readonly wpe: Tensor;
  readonly blocks: readonly BlockWeights[];
  readonly lnF: NormWeights;
  /** [V, C] in blocks of rows; the same tensors as wte when the head is tied. */
  readonly head: readonly Tensor[];
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
  const loaded = new Map<string, readonly Tensor[]>();
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
    const total = expected.reduce((bytes, e) => bytes + tensors.get(e.name)!.byteLength, 0);
    const loader = new TensorLoader(gpu, file.path, total, options);
    for (const tensor of expected)
      await loader.load(tensor, tensors.get(tensor.name)!, (blocks) => loaded.set(tensor.name, blocks));
    await gpu.finish();
    return assemble(config, loaded);
  } catch (error) {
    for (const t of [...loaded.values()].flat()) t.free();
    throw error;
  } finally {
    await file.close();
  }
}

/** The loaded tensors by their places in the model. */
function assemble(config: ModelConfig, loaded: ReadonlyMap<string, readonly Tensor[]>): Gpt2Weights {
  const one = (name: string): Tensor => loaded.get(name)![0]!;
  const pair = (name: string) => ({ weight: one(`${name}.weight`), bias: one(`${name}.bias`) });
  const wte = loaded.get("wte.weight")!;
  return {
    wte,
    wpe: one("wpe.weight"),
    blocks: Array.from({ length: config.layers }, (_, l) => ({
      ln1: pair(`h.${l}.ln_1`),
      attention: pair(`h.${l}.attn.c_attn`),
      attentionProjection: pair(`h.${l}.attn.c_proj`),
      ln2: pair(`h.${l}.ln_2`),
      fc: pair(`h.${l}.mlp.c_fc`),
      fcProjection: pair(`h.${l}.mlp.c_proj`),
    })),
    lnF: pair("ln_f"),
    head: config.tiedHead ? wte : loaded.get("lm_head.weight")!,
  };
}

export function freeWeights(weights: Gpt2Weights): void {
  const { wte, wpe, blocks, lnF, head } = weights;
  const pairs = [...blocks.flatMap((block) => Object.values(block) as LinearWeights[]), lnF];
  const all = new Set([...wte, wpe, ...pairs.flatMap(({ weight, bias }) => [weight, bias]), ...head]);
  for (const tensor of all) tensor.free();
}
