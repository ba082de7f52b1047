import { shapeText } from "../check.ts";
import { CheckpointError } from "../formats/checkpoint-error.ts";
import { quote } from "../formats/quote.ts";
import type { StoredTensor } from "../formats/tensor-file.ts";
import type { ModelConfig } from "./config.ts";

/** How weights may lie on the GPU, as the command line says it. Biases and layer norms are f32 whatever it is. */
export const WEIGHT_DTYPES = ["f32", "f16", "int8"] as const;
export type WeightDtype = (typeof WEIGHT_DTYPES)[number];

/** Parts of a GPT-2, in the order in which a token meets them. */
export const TENSOR_KINDS = [
  "token embedding",
  "position embedding",
  "layer norms",
  "attention",
  "MLP",
  "output head",
] as const;
export type TensorKind = (typeof TENSOR_KINDS)[number];

/** A tensor that a checkpoint must have. */
export interface ExpectedTensor {
  /** Without the prefixes that training scripts put before it: `h.0.attn.c_attn.weight`. */
  readonly name: string;
  readonly kind: TensorKind;
  readonly shape: readonly number[];
  /**
   * On the GPU tables of rows and matrices [K, N] have the model's dtype; as int8 a table has a scale for each row, a
   * matrix for each column. Vectors (biases, layer norms) are f32.
   */
  readonly form: "table" | "matrix" | "vector";
}

/** All tensors of a GPT-2 with this config, in the order in which a token meets them. Conv1D weights are [in, out]. */
export function expectedTensors(config: ModelConfig): ExpectedTensor[] {
  const { channels: C, innerChannels: F, vocabSize: V, contextLength: P } = config;
  const table = (name: string, kind: TensorKind, rows: number): ExpectedTensor => ({
    name,
    kind,
    shape: [rows, C],
    form: "table",
  });
  const norm = (name: string): ExpectedTensor[] =>
    ["weight", "bias"].map((part) => ({
      name: `${name}.${part}`,
      kind: "layer norms",
      shape: [C],
      form: "vector",
    }));
  const linear = (name: string, kind: TensorKind, rows: number, cols: number): ExpectedTensor[] => [
    { name: `${name}.weight`, kind, shape: [rows, cols], form: "matrix" },
    { name: `${name}.bias`, kind, shape: [cols], form: "vector" },
  ];
  const blocks = Array.from({ length: config.layers }, (_, l) => [
    ...norm(`h.${l}.ln_1`),
    ...linear(`h.${l}.attn.c_attn`, "attention", C, 3 * C),
    ...linear(`h.${l}.attn.c_proj`, "attention", C, C),
    ...norm(`h.${l}.ln_2`),
    ...linear(`h.${l}.mlp.c_fc`, "MLP", C, F),
    ...linear(`h.${l}.mlp.c_proj`, "MLP", F, C),
  ]);
  return [
    table("wte.weight", "token embedding", V),
    table("wpe.weight", "position embedding", P),
    ...blocks.flat(),
    ...norm("ln_f"),
    ...(config.tiedHead ? [] : [table("lm_head.weight", "output head", V)]),
  ];
}

/**
 * The first tensor of a layer that the config does not have, such as `h.3.ln_1.weight` with n_layer 3: a file with more
 * layers would load as a smaller model that talks nonsense. `names` are without prefixes. Its error has code MODEL_SHAPE.
 */
export function extraLayer(config: ModelConfig, names: Iterable<string>): string | undefined {
  for (const name of names) {
    const layer = /^h\.(\d+)\./.exec(name)?.[1];
    if (layer !== undefined && Number(layer) >= config.layers) return name;
  }
  return undefined;
}

/** The error about a file that has the tensor `name` of an extra layer. */
export function extraLayerProblem(file: string, config: ModelConfig, name: string): CheckpointError {
  const what = `${quote(name)} is in the file, config has n_layer ${config.layers}; correct n_layer in config.json`;
  return new CheckpointError("MODEL_SHAPE", file, what);
}

const FLOATS = ["F64", "F32", "F16", "BF16"];

/** Why what `file` stores cannot be this tensor (MODEL_MISSING, MODEL_SHAPE, MODEL_DTYPE), or undefined when it can. */
export function tensorProblem(
  file: string,
  { name, shape }: ExpectedTensor,
  stored: StoredTensor | undefined,
): CheckpointError | undefined {
  const wanted = shapeText(shape);
  if (!stored) {
    const what = `\`${name}\` is not in the file; GPT-2 needs it, ${wanted}`;
    return new CheckpointError("MODEL_MISSING", file, what);
  }
  if (shapeText(stored.shape) !== wanted) {
    const what = `\`${name}\` is ${shapeText(stored.shape)}, config wants ${wanted}`;
    return new CheckpointError("MODEL_SHAPE", file, what);
  }
  if (!FLOATS.includes(stored.dtype)) {
    const what = `\`${name}\` is ${stored.dtype}; expected F32, F16, BF16 or F64`;
    return new CheckpointError("MODEL_DTYPE", file, what);
  }
  return undefined;
}
