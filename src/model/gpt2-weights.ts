import { openCheckpoint } from "../formats/checkpoint.ts";
import { CheckpointError } from "../formats/checkpoint-error.ts";
import { gpt2Tensors } from "../formats/gpt2-names.ts";
import { DTYPE_BYTES, type StoredTensor } from "../formats/tensor-file.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { narrowToHalf } from "../half.ts";
import { ELEMENT_BYTES, rowStride, shapeText, Tensor } from "../tensor.ts";
import type { ModelConfig } from "./config.ts";
import { widenStored } from "./widen-stored.ts";

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

export interface LoadOptions {
  /** Matrices and embeddings on the GPU; biases and layer norms stay f32. Default "f32". */
  readonly dtype?: "f32" | "f16";
  /** Refuse weights that are not finite, instead of a warning. */
  readonly strict?: boolean;
  readonly onProgress?: (bytesDone: number, bytesTotal: number) => void;
  readonly onWarning?: (message: string) => void;
  /** Largest piece of a table in one buffer, in bytes. Default: what the device can bind. */
  readonly maxBlockBytes?: number;
}

/** Bytes of a checkpoint that are read, converted and uploaded at a time. */
const CHUNK_BYTES = 16 * 2 ** 20;

/** Uploads pass through memory that Dawn frees when the GPU has taken them; wait before more than this piles up. */
const MAX_IN_FLIGHT_BYTES = 4 * CHUNK_BYTES;

/**
 * Read a checkpoint's weights into GPU memory: a chunk at a time, so that the host never holds a whole tensor.
 *
 * Throws CheckpointError: MODEL_MISSING, MODEL_SHAPE, MODEL_DTYPE, with `strict` MODEL_NAN, and all that opening the file
 * can throw; OutOfMemory. After an error no GPU memory is left behind.
 */
export async function loadWeights(
  gpu: Gpu,
  path: string,
  config: ModelConfig,
  options: LoadOptions = {},
): Promise<Gpt2Weights> {
  const file = await openCheckpoint(path);
  const made: Tensor[] = [];
  try {
    const { tensors } = gpt2Tensors(file);
    const loader = new Loader(gpu, file.path, tensors, options, made);
    const weights = await loader.all(config);
    await gpu.finish();
    // A tied head may be stored a second time; it is the token embedding all the same.
    const unknown = [...tensors.keys()].filter((name) => !loader.used.has(name) && name !== "lm_head.weight");
    if (unknown.length > 0)
      options.onWarning?.(
        `${file.path}: ${unknown.length} tensors that GPT-2 does not have are ignored: ${unknown.slice(0, 8).join(", ")}`,
      );
    return weights;
  } catch (error) {
    for (const t of made) if (!t.isFreed) t.free();
    throw error;
  } finally {
    await file.close();
  }
}

export function freeWeights(weights: Gpt2Weights): void {
  const { wte, wpe, blocks, lnF, head } = weights;
  const norms = [...blocks.flatMap((b) => [b.ln1, b.ln2]), lnF];
  const linears = blocks.flatMap((b) => [b.attention, b.attentionProjection, b.fc, b.fcProjection]);
  const all = new Set([
    ...wte,
    wpe,
    ...[...norms, ...linears].flatMap(({ weight, bias }) => [weight, bias]),
    ...head,
  ]);
  for (const tensor of all) tensor.free();
}

class Loader {
  readonly used = new Set<string>();
  private inFlight = 0;
  private done = 0;
  private readonly total: number;
  private readonly gpu: Gpu;
  private readonly file: string;
  private readonly tensors: ReadonlyMap<string, StoredTensor>;
  private readonly options: LoadOptions;
  private readonly made: Tensor[];

  constructor(
    gpu: Gpu,
    file: string,
    tensors: ReadonlyMap<string, StoredTensor>,
    options: LoadOptions,
    made: Tensor[],
  ) {
    this.gpu = gpu;
    this.file = file;
    this.tensors = tensors;
    this.options = options;
    this.made = made;
    this.total = [...tensors.values()].reduce((bytes, t) => bytes + t.byteLength, 0);
  }

  async all(config: ModelConfig): Promise<Gpt2Weights> {
    const { channels: C, innerChannels: F, vocabSize: V, contextLength: P } = config;
    const wte = await this.table("wte.weight", V, C);
    const wpe = await this.matrix("wpe.weight", P, C);
    const blocks: BlockWeights[] = [];
    for (let l = 0; l < config.layers; l++) {
      blocks.push({
        ln1: await this.norm(`h.${l}.ln_1`, C),
        attention: await this.linear(`h.${l}.attn.c_attn`, C, 3 * C),
        attentionProjection: await this.linear(`h.${l}.attn.c_proj`, C, C),
        ln2: await this.norm(`h.${l}.ln_2`, C),
        fc: await this.linear(`h.${l}.mlp.c_fc`, C, F),
        fcProjection: await this.linear(`h.${l}.mlp.c_proj`, F, C),
      });
    }
    const lnF = await this.norm("ln_f", C);
    const head = config.tiedHead ? wte : await this.table("lm_head.weight", V, C);
    return { wte, wpe, blocks, lnF, head };
  }

  private async norm(name: string, cols: number): Promise<NormWeights> {
    return {
      weight: await this.vector(`${name}.weight`, cols),
      bias: await this.vector(`${name}.bias`, cols),
    };
  }

  private async linear(name: string, rows: number, cols: number): Promise<LinearWeights> {
    return {
      weight: await this.matrix(`${name}.weight`, rows, cols),
      bias: await this.vector(`${name}.bias`, cols),
    };
  }

  private async vector(name: string, cols: number): Promise<Tensor> {
    const [tensor] = await this.load(name, [cols], "f32", 1);
    return tensor!;
  }

  private async matrix(name: string, rows: number, cols: number): Promise<Tensor> {
    const [tensor] = await this.load(name, [rows, cols], this.options.dtype ?? "f32", rows);
    return tensor!;
  }

  /** A table of rows, in as many blocks as the device's limit asks for. */
  private async table(name: string, rows: number, cols: number): Promise<Tensor[]> {
    const dtype = this.options.dtype ?? "f32";
    const limit = this.options.maxBlockBytes ?? this.gpu.maxBindingBytes;
    const blockRows = Math.max(1, Math.floor(limit / (rowStride(cols) * ELEMENT_BYTES[dtype])));
    return this.load(name, [rows, cols], dtype, blockRows);
  }

  /** One tensor of the checkpoint, as tensors of up to `blockRows` rows. */
  private async load(
    name: string,
    shape: readonly number[],
    dtype: "f32" | "f16",
    blockRows: number,
  ): Promise<Tensor[]> {
    const stored = this.find(name, shape);
    this.used.add(name);
    const cols = shape.at(-1)!;
    const rows = shape.length === 1 ? 1 : shape[0]!;
    const storedRow = cols * DTYPE_BYTES[stored.dtype];
    const chunkRows = Math.max(1, Math.floor(CHUNK_BYTES / storedRow));
    const blocks: Tensor[] = [];
    let notFinite = 0;
    for (let first = 0; first < rows; first += blockRows) {
      const count = Math.min(blockRows, rows - first);
      const blockShape = shape.length === 1 ? shape : [count, cols];
      const block = Tensor.empty(this.gpu, blockShape, { dtype, purpose: "weights", label: name });
      this.made.push(block);
      blocks.push(block);
      // Whether the device had room is known only now; writing into a buffer that it refused would be a second error.
      await this.gpu.settle();
      const targetRow = block.stride * ELEMENT_BYTES[dtype];
      for (let r = 0; r < count; r += chunkRows) {
        const n = Math.min(chunkRows, count - r);
        const begin = (first + r) * storedRow;
        const values = widenStored(await stored.read(begin, begin + n * storedRow), stored.dtype);
        notFinite += countNotFinite(values);
        const padded = padRows(values, n, cols, block.stride);
        this.gpu.write(block, dtype === "f32" ? padded : narrowToHalf(padded), r * targetRow);
        await this.uploaded(n * targetRow, n * storedRow);
      }
    }
    if (notFinite > 0) this.reportNotFinite(name, notFinite);
    return blocks;
  }

  private async uploaded(bytes: number, storedBytes: number): Promise<void> {
    this.done += storedBytes;
    this.inFlight += bytes;
    this.options.onProgress?.(this.done, this.total);
    if (this.inFlight < MAX_IN_FLIGHT_BYTES) return;
    await this.gpu.finish();
    this.inFlight = 0;
  }

  private find(name: string, shape: readonly number[]): StoredTensor {
    const stored = this.tensors.get(name);
    if (!stored)
      throw new CheckpointError(
        "MODEL_MISSING",
        this.file,
        `\`${name}\` is not in the file; GPT-2 needs it, ${shapeText(shape)}`,
      );
    if (shapeText(stored.shape) !== shapeText(shape))
      throw new CheckpointError(
        "MODEL_SHAPE",
        this.file,
        `\`${name}\` is ${shapeText(stored.shape)}, config wants ${shapeText(shape)}`,
      );
    if (!["F64", "F32", "F16", "BF16"].includes(stored.dtype))
      throw new CheckpointError(
        "MODEL_DTYPE",
        this.file,
        `\`${name}\` is ${stored.dtype}; expected F32, F16, BF16 or F64`,
      );
    return stored;
  }

  private reportNotFinite(name: string, count: number): void {
    const error = new CheckpointError(
      "MODEL_NAN",
      this.file,
      `\`${name}\` has ${count} values that are NaN or infinite`,
    );
    if (this.options.strict) throw error;
    this.options.onWarning?.(error.message);
  }
}

function countNotFinite(values: Float32Array): number {
  let count = 0;
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i]!)) count++;
  return count;
}

/** Rows of `cols` spread to rows of `stride`, zeros between. */
function padRows(values: Float32Array, rows: number, cols: number, stride: number): Float32Array {
  if (cols === stride) return values;
  const padded = new Float32Array(rows * stride);
  for (let r = 0; r < rows; r++) padded.set(values.subarray(r * cols, (r + 1) * cols), r * stride);
  return padded;
}
