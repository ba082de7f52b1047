import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { BadInput } from "../check.ts";
import { openCheckpoint } from "../formats/checkpoint.ts";
import { CheckpointError } from "../formats/checkpoint-error.ts";
import { listFolder, openBytes } from "../formats/file-bytes.ts";
import { gpt2Tensors } from "../formats/gpt2-names.ts";
import { sniff } from "../formats/magic.ts";
import { readShardIndex } from "../formats/shard-index.ts";
import type { StoredTensor, TensorFile } from "../formats/tensor-file.ts";
import { type CacheShape, slotBytes } from "../kv/cache.ts";
import { kvBytesPerToken, loadConfig, type ModelConfig, parameterCount } from "../model/config.ts";
import {
  type ExpectedTensor,
  expectedTensors,
  extraLayer,
  extraLayerProblem,
  type TensorKind,
  tensorProblem,
  type WeightDtype,
} from "../model/expected-tensors.ts";
import {
  contiguousBytes,
  mostThatFit,
  pagedBytes,
  type StepBytes,
  stepBytes,
  weightBytes,
} from "../model/footprint.ts";
import { parseDefinition } from "../tokenizer/definition.ts";
import { readSource } from "../tokenizer/tokenizer-files.ts";
import { loadTokenizer } from "../tokenizer.ts";
import { type InspectedPlan, inspectPlan, type PlanOptions } from "./inspect-plan.ts";

/** Changes whenever a field of `quire inspect --json` changes its meaning. */
export const INSPECT_SCHEMA = "quire-inspect/1";

export interface InspectOptions {
  readonly dtype: WeightDtype;
  readonly kvDtype: "f32" | "f16";
  readonly pageSize: number;
  /** Tokens of each sequence in a paged cache. Default: the model's context. */
  readonly length?: number;
  /** Most tokens of a prompt that are computed at once. */
  readonly prefillChunk: number;
  /** A step to plan. */
  readonly plan?: PlanOptions | undefined;
  /** Bytes of GPU memory to fill with sequences. */
  readonly memory?: number;
}

/** A tensor of the model and what the checkpoint holds for it; null where it holds nothing. */
export interface InspectedTensor {
  readonly name: string;
  readonly kind: TensorKind;
  readonly shape: readonly number[];
  readonly storedDtype: string | null;
  readonly storedShape: readonly number[] | null;
  readonly storedBytes: number | null;
  readonly gpuDtype: WeightDtype;
  /** Row padding and the scales of int8 included. */
  readonly gpuBytes: number;
}

/** What `quire inspect --json` prints. Sizes are in bytes. */
export interface Inspection {
  readonly schema: typeof INSPECT_SCHEMA;
  readonly path: string;
  readonly config: ModelConfig;
  readonly parameters: number;
  /** Null when there is no checkpoint that can be opened. */
  readonly checkpoint: {
    readonly format: "safetensors" | "pytorch zip" | "pytorch before zip";
    readonly files: readonly { readonly name: string; readonly bytes: number }[];
    readonly tensors: number;
    /** Of the tensors that the model needs. */
    readonly storedBytes: number;
    /** Causal masks and a second copy of a tied head: known, not needed. */
    readonly ignored: readonly string[];
    /** Tensors that no GPT-2 has. */
    readonly extra: readonly string[];
  } | null;
  readonly tensors: readonly InspectedTensor[];
  /** What keeps the model from being loaded, in the order in which loading would meet it. */
  readonly problems: readonly { readonly code: string; readonly message: string }[];
  readonly weights: { readonly dtype: WeightDtype; readonly gpuBytes: number };
  readonly kv: {
    readonly dtype: "f32" | "f16";
    /** 2 · layers · heads · head size · bytes of an element. */
    readonly bytesPerToken: number;
    /** The same with heads padded to a multiple of four channels, as they lie in memory. */
    readonly slotBytes: number;
    readonly fullContextBytes: number;
  };
  /** The prefill of one sequence of `length` tokens, in pieces of at most `chunk`. */
  readonly prefill: StepBytes & { readonly length: number; readonly chunk: number };
  /** Null where it was not asked for. */
  readonly memoryPlan: InspectedPlan | null;
  /** Sequences that fit --memory; null without it, -1 where not even the weights fit. */
  readonly fit: {
    readonly memory: number;
    readonly length: number;
    readonly pageSize: number;
    readonly contiguous: number;
    readonly paged: number;
    /** Keys of one layer, which are one buffer, in the larger of the two caches. */
    readonly layerBufferBytes: number;
  } | null;
  readonly tokenizer: {
    readonly kind: string;
    readonly vocabSize: number;
    readonly bosTokenId: number | null;
    readonly eosTokenId: number | null;
  } | null;
  readonly tokenizerProblem: string | null;
}

/**
 * Read headers, config and tokenizer of the model at `path` (a folder, or a weight file beside its config.json), and
 * work out what it takes on a GPU. No GPU is needed.
 *
 * Throws CheckpointError for a config.json that cannot be used and BadInput for a length outside the context; what is
 * wrong with the weights is in `problems`.
 */
export async function inspectModel(path: string, options: InspectOptions): Promise<Inspection> {
  const folder = (await listFolder(path)) === undefined ? dirname(path) : path;
  const config = await loadConfig(folder);
  const { dtype, kvDtype, pageSize, memory, length = config.contextLength, prefillChunk, plan } = options;
  if (length > config.contextLength)
    throw new BadInput(`--length is ${length}; wanted at most ${config.contextLength}, the model's context`);
  const memoryPlan = plan ? inspectPlan(config, plan) : null;
  const chunk = Math.min(length, prefillChunk);
  const expected = expectedTensors(config);
  const stored = await readCheckpoint(path, config, expected);
  const tensors = expected.map((tensor) => inspected(tensor, stored.tensors.get(tensor.name), dtype));
  const gpuBytes = tensors.reduce((sum, tensor) => sum + tensor.gpuBytes, 0);
  const shape = { ...config, dtype: kvDtype };
  return {
    schema: INSPECT_SCHEMA,
    path,
    config,
    parameters: parameterCount(config),
    checkpoint: stored.checkpoint,
    tensors,
    problems: stored.problems.map(({ code, message }) => ({ code, message })),
    weights: { dtype, gpuBytes },
    kv: {
      dtype: kvDtype,
      bytesPerToken: kvBytesPerToken(config, kvDtype === "f32" ? 4 : 2),
      slotBytes: slotBytes(shape),
      fullContextBytes: config.contextLength * slotBytes(shape),
    },
    prefill: { length, chunk, ...stepBytes(config, chunk, 1) },
    memoryPlan,
    fit:
      memory === undefined
        ? null
        : sequencesThatFit(config, shape, gpuBytes, chunk, { memory, length, pageSize }),
    ...(await readTokenizer(folder)),
  };
}

interface Budget {
  readonly memory: number;
  readonly length: number;
  readonly pageSize: number;
}

/** How many sequences fit beside the weights and the largest step. */
function sequencesThatFit(
  config: ModelConfig,
  shape: CacheShape,
  weights: number,
  chunk: number,
  budget: Budget,
): Inspection["fit"] {
  const { memory, length, pageSize } = budget;
  const strips = (n: number) => contiguousBytes(shape, n, config.contextLength);
  const pages = (n: number) => pagedBytes(shape, n, length, pageSize);
  const most = (cache: (n: number) => number) =>
    mostThatFit(memory, (n) => weights + (n === 0 ? 0 : cache(n) + largestStep(config, chunk, n)));
  const [contiguous, paged] = [most(strips), most(pages)];
  const cacheBytes = Math.max(strips(Math.max(0, contiguous)), pages(Math.max(0, paged)));
  return { ...budget, contiguous, paged, layerBufferBytes: cacheBytes / (2 * config.layers) };
}

/** Of the two kinds of step that a server makes: `chunk` tokens of one prompt, or one token of each sequence. */
function largestStep(config: ModelConfig, chunk: number, sequences: number): number {
  return Math.max(stepBytes(config, chunk, 1).total, stepBytes(config, sequences, sequences).total);
}

function inspected(
  tensor: ExpectedTensor,
  stored: StoredTensor | undefined,
  dtype: WeightDtype,
): InspectedTensor {
  const { name, kind, shape, form } = tensor;
  return {
    name,
    kind,
    shape,
    storedDtype: stored?.dtype ?? null,
    storedShape: stored?.shape ?? null,
    storedBytes: stored?.byteLength ?? null,
    gpuDtype: form === "vector" ? "f32" : dtype,
    gpuBytes: weightBytes(tensor, dtype),
  };
}

interface Stored {
  readonly checkpoint: Inspection["checkpoint"];
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly problems: readonly CheckpointError[];
}

async function readCheckpoint(
  path: string,
  config: ModelConfig,
  expected: readonly ExpectedTensor[],
): Promise<Stored> {
  let file: TensorFile | undefined;
  try {
    file = await openCheckpoint(path);
    const { tensors, ignored } = gpt2Tensors(file);
    const wanted = new Set(expected.map(({ name }) => name));
    const twin = config.tiedHead && tensors.has("lm_head.weight") ? ["lm_head.weight"] : [];
    const checkpoint = {
      ...(await describeFiles(file)),
      tensors: file.tensors.size,
      storedBytes: expected.reduce((sum, { name }) => sum + (tensors.get(name)?.byteLength ?? 0), 0),
      ignored: [...ignored, ...twin],
      extra: [...tensors.keys()].filter((name) => !wanted.has(name) && !twin.includes(name)),
    };
    const problems = expected.flatMap((e) => tensorProblem(file!.path, e, tensors.get(e.name)) ?? []);
    const extra = extraLayer(config, tensors.keys());
    if (extra !== undefined) problems.push(extraLayerProblem(file.path, config, extra));
    return { checkpoint, tensors, problems };
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    return { checkpoint: null, tensors: new Map(), problems: [error] };
  } finally {
    await file?.close();
  }
}

/** The files of a checkpoint, an index first, and in which form they are. */
async function describeFiles({ path, format }: TensorFile) {
  const names = [basename(path)];
  if (path.endsWith(".index.json")) {
    const index = await openBytes(path);
    try {
      names.push(...new Set((await readShardIndex(index)).weightMap.values()));
    } finally {
      await index.close();
    }
  }
  const folder = dirname(path);
  const files = await Promise.all(
    names.map(async (name) => ({ name, bytes: (await stat(join(folder, name))).size })),
  );
  if (format === "safetensors") return { format, files };
  const last = await openBytes(join(folder, names.at(-1)!));
  try {
    const { kind } = await sniff(last);
    return { format: kind === "zip" ? ("pytorch zip" as const) : ("pytorch before zip" as const), files };
  } finally {
    await last.close();
  }
}

/** A model without a tokenizer can still be run on token ids, so a problem here is no error. */
async function readTokenizer(folder: string): Promise<Pick<Inspection, "tokenizer" | "tokenizerProblem">> {
  try {
    const { vocabSize, bosTokenId, eosTokenId } = await loadTokenizer(folder);
    const kind = await tokenizerKind(folder);
    const ids = { bosTokenId: bosTokenId ?? null, eosTokenId: eosTokenId ?? null };
    return { tokenizer: { kind, vocabSize, ...ids }, tokenizerProblem: null };
  } catch (error) {
    return { tokenizer: null, tokenizerProblem: (error as Error).message };
  }
}

/** Kind and files, in the order in which loadTokenizer prefers them. */
async function tokenizerKind(folder: string): Promise<string> {
  const names = (await listFolder(folder))!;
  if (names.has("tokenizer.json")) {
    const { type } = parseDefinition(await readSource(folder, "tokenizer.json")).model;
    return `${type} (tokenizer.json)`;
  }
  return names.has("vocab.json") ? "byte-level BPE (vocab.json, merges.txt)" : "WordPiece (vocab.txt)";
}
