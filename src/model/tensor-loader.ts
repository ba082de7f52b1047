import { CheckpointError } from "../formats/checkpoint-error.ts";
import { DTYPE_BYTES, type StoredTensor } from "../formats/tensor-file.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { narrowToHalf } from "../half.ts";
import { ELEMENT_BYTES, rowStride, Tensor } from "../tensor.ts";
import type { ExpectedTensor } from "./expected-tensors.ts";
import { widenStored } from "./widen-stored.ts";

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

/** Brings stored tensors into GPU memory, chunk by chunk, in the dtype that the model is to have. */
export class TensorLoader {
  private readonly gpu: Gpu;
  private readonly file: string;
  private readonly total: number;
  private readonly options: LoadOptions;
  private done = 0;
  private inFlight = 0;

  /** `file` stands in messages; `total` is the sum of the stored bytes to come, for the progress. */
  constructor(gpu: Gpu, file: string, total: number, options: LoadOptions) {
    this.gpu = gpu;
    this.file = file;
    this.total = total;
    this.options = options;
  }

  /**
   * Load one tensor. A table of the vocabulary comes as blocks of rows, as many as the device's limit asks for; any other
   * tensor as one block. `own` is told of the blocks before data goes into them, so that they are freed after an error.
   */
  async load(
    expected: ExpectedTensor,
    stored: StoredTensor,
    own: (blocks: readonly Tensor[]) => void,
  ): Promise<void> {
    const { name, shape, matrix } = expected;
    const dtype = matrix ? (this.options.dtype ?? "f32") : "f32";
    const cols = shape.at(-1)!;
    const rows = shape.length === 1 ? 1 : shape[0]!;
    const blockRows = this.blockRows(expected, rows, cols, dtype);
    const blocks: Tensor[] = [];
    let notFinite = 0;
    for (let first = 0; first < rows; first += blockRows) {
      const count = Math.min(blockRows, rows - first);
      const blockShape = shape.length === 1 ? shape : [count, cols];
      const block = Tensor.empty(this.gpu, blockShape, { dtype, purpose: "weights", label: name });
      blocks.push(block);
      own(blocks);
      // Whether the device had room is known only now; writing into a buffer that it refused would be a second error.
      await this.gpu.settle();
      notFinite += await this.fill(block, stored, first, count);
    }
    if (notFinite > 0) this.reportNotFinite(name, notFinite);
  }

  private blockRows({ kind }: ExpectedTensor, rows: number, cols: number, dtype: "f32" | "f16"): number {
    if (kind !== "token embedding" && kind !== "output head") return rows;
    const limit = this.options.maxBlockBytes ?? this.gpu.maxBindingBytes;
    return Math.max(1, Math.floor(limit / (rowStride(cols) * ELEMENT_BYTES[dtype])));
  }

  /** Rows first … first + count - 1 of a stored tensor into a block. Returns how many values are not finite. */
  private async fill(block: Tensor, stored: StoredTensor, first: number, count: number): Promise<number> {
    const { cols, stride, dtype } = block;
    const storedRow = cols * DTYPE_BYTES[stored.dtype];
    const targetRow = stride * ELEMENT_BYTES[dtype];
    const chunkRows = Math.max(1, Math.floor(CHUNK_BYTES / storedRow));
    let notFinite = 0;
    for (let r = 0; r < count; r += chunkRows) {
      const n = Math.min(chunkRows, count - r);
      const begin = (first + r) * storedRow;
      const values = widenStored(await stored.read(begin, begin + n * storedRow), stored.dtype);
      const padded = padRows(values, n, cols, stride);
      const data = dtype === "f32" ? padded : narrowToHalf(padded);
      notFinite += countNotFinite(data);
      this.gpu.write(block, data, r * targetRow);
      await this.uploaded(n * targetRow, n * storedRow);
    }
    return notFinite;
  }

  private async uploaded(bytes: number, storedBytes: number): Promise<void> {
    this.done += storedBytes;
    this.inFlight += bytes;
    this.options.onProgress?.(this.done, this.total);
    if (this.inFlight < MAX_IN_FLIGHT_BYTES) return;
    await this.gpu.finish();
    this.inFlight = 0;
  }

  private reportNotFinite(name: string, count: number): void {
    const what = `\`${name}\` has ${count} values that are NaN or infinite`;
    const error = new CheckpointError("MODEL_NAN", this.file, what);
    if (this.options.strict) throw error;
    this.options.onWarning?.(error.message);
  }
}

/** NaN and infinity among floats or halves, those that a float past 65,504 became as a half included. */
function countNotFinite(values: Float32Array | Uint16Array): number {
  let count = 0;
  if (values instanceof Float32Array) {
    for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i]!)) count++;
  } else {
    for (let i = 0; i < values.length; i++) if ((values[i]! & 0x7c00) === 0x7c00) count++;
  }
  return count;
}

/** Rows of `cols` spread to rows of `stride`, zeros between. */
function padRows(values: Float32Array, rows: number, cols: number, stride: number): Float32Array {
  if (cols === stride) return values;
  const padded = new Float32Array(rows * stride);
  for (let r = 0; r < rows; r++) padded.set(values.subarray(r * cols, (r + 1) * cols), r * stride);
  return padded;
}
