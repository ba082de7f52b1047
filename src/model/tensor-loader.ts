import { CheckpointError } from "../formats/checkpoint-error.ts";
import { DTYPE_BYTES, type StoredTensor } from "../formats/tensor-file.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { narrowToHalf } from "../half.ts";
import type { Table } from "../ops/storage.ts";
import { quantize, raiseScales } from "../quantize.ts";
import { type Dtype, ELEMENT_BYTES, rowStride, Tensor } from "../tensor.ts";
import type { ExpectedTensor, WeightDtype } from "./expected-tensors.ts";
import type { LinearWeights } from "./gpt2-weights.ts";
import { widenStored } from "./widen-stored.ts";

export interface LoadOptions {
  /** Matrices and embeddings on the GPU; biases, layer norms and the scales of int8 are f32. Default "f32". */
  readonly dtype?: WeightDtype;
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

/** Brings the tensors of a checkpoint into GPU memory, chunk by chunk, in the dtype that the model is to have. */
export class TensorLoader {
  private readonly gpu: Gpu;
  private readonly file: string;
  private readonly stored: ReadonlyMap<string, StoredTensor>;
  private readonly options: LoadOptions;
  private readonly made: Tensor[] = [];
  /** Stored bytes that will be read, for the progress. */
  private readonly total: number;
  private done = 0;
  private inFlight = 0;

  /** `file` stands in messages; `stored` has what is `expected`, in the right shapes. */
  constructor(
    gpu: Gpu,
    file: string,
    stored: ReadonlyMap<string, StoredTensor>,
    expected: readonly ExpectedTensor[],
    options: LoadOptions,
  ) {
    this.gpu = gpu;
    this.file = file;
    this.stored = stored;
    this.options = options;
    // A matrix as int8 is read twice: for its scales, then for its bytes.
    const times = ({ form }: ExpectedTensor) => (form === "matrix" && this.dtype === "i8" ? 2 : 1);
    this.total = expected.reduce((bytes, e) => bytes + times(e) * stored.get(e.name)!.byteLength, 0);
  }

  /** A table of rows; `inBlocks` as many as the device's limit asks for, else one. */
  async table(name: string, { inBlocks = false } = {}): Promise<Table> {
    const stored = this.stored.get(name)!;
    const [rows, cols] = stored.shape as [number, number];
    const blockRows = inBlocks ? this.blockRows(cols) : rows;
    const blocks: Tensor[] = [];
    const scales = this.dtype === "i8" ? new Float32Array(rowStride(rows)) : undefined;
    let notFinite = 0;
    for (let first = 0; first < rows; first += blockRows) {
      const count = Math.min(blockRows, rows - first);
      const block = await this.make([count, cols], this.dtype, name);
      const ofRows = scales?.subarray(first, first + count);
      notFinite += await this.fill(block, stored, { first, encode: ofRows && rowEncoder(block, ofRows) });
      blocks.push(block);
    }
    this.reportNotFinite(name, notFinite);
    if (!scales) return { blocks };
    const tensor = await this.make([rows], "f32", `${name}.scales`);
    this.gpu.write(tensor, scales);
    return { blocks, scales: tensor };
  }

  /** `name`.weight [K, N] and `name`.bias, with the scales of the weight's columns where it is i8. */
  async linear(name: string): Promise<LinearWeights> {
    const stored = this.stored.get(`${name}.weight`)!;
    const weight = await this.make(stored.shape, this.dtype, `${name}.weight`);
    const scales = weight.dtype === "i8" ? await this.columnScales(stored, weight) : undefined;
    const encode = scales && ((padded: Float32Array) => quantize(padded, weight.stride, "column", scales));
    this.reportNotFinite(`${name}.weight`, await this.fill(weight, stored, { encode }));
    const bias = await this.make([scales ? 2 : 1, weight.cols], "f32", `${name}.bias`);
    await this.vector(bias, 0, `${name}.bias`);
    if (scales) this.gpu.write(bias, scales, scales.byteLength);
    return { weight, bias };
  }

  /** `name`.weight and `name`.bias as one tensor [2, C]. */
  async norm(name: string): Promise<Tensor> {
    const [cols] = this.stored.get(`${name}.weight`)!.shape;
    const norm = await this.make([2, cols!], "f32", name);
    await this.vector(norm, 0, `${name}.weight`);
    await this.vector(norm, 1, `${name}.bias`);
    return norm;
  }

  /** Give back everything that was loaded. */
  free(): void {
    for (const tensor of this.made) tensor.free();
  }

  private get dtype(): "f32" | "f16" | "i8" {
    const { dtype = "f32" } = this.options;
    return dtype === "int8" ? "i8" : dtype;
  }

  private blockRows(cols: number): number {
    const limit = this.options.maxBlockBytes ?? this.gpu.maxBindingBytes;
    return Math.max(1, Math.floor(limit / (rowStride(cols) * ELEMENT_BYTES[this.dtype])));
  }

  private async make(shape: readonly number[], dtype: Dtype, label: string): Promise<Tensor> {
    const tensor = Tensor.empty(this.gpu, shape, { dtype, purpose: "weights", label });
    this.made.push(tensor);
    // Whether the device had room is known only now; writing into a buffer that it refused would be a second error.
    await this.gpu.settle();
    return tensor;
  }

  /** A stored vector into a row of a tensor. */
  private async vector(target: Tensor, row: number, name: string): Promise<void> {
    this.reportNotFinite(name, await this.fill(target, this.stored.get(name)!, { row, count: 1 }));
  }

  /** The scales of a matrix's columns, zero in the padding. They are known only when all of it has been read. */
  private async columnScales(stored: StoredTensor, { rows, cols, stride }: Tensor): Promise<Float32Array> {
    const scales = new Float32Array(stride);
    for await (const { values } of this.chunks(stored, cols, 0, rows))
      raiseScales(values, cols, "column", scales);
    return scales;
  }

  /**
   * `count` rows of a stored tensor, from its row `first` on, into the rows of `target` from `row` on. Returns how many
   * values are not finite.
   */
  private async fill(
    target: Tensor,
    stored: StoredTensor,
    {
      first = 0,
      row = 0,
      count = target.rows,
      encode = target.dtype === "f16" ? narrowToHalf : asFloats,
    }: {
      first?: number;
      row?: number;
      count?: number;
      encode?: Encoder | undefined;
    } = {},
  ): Promise<number> {
    const { cols, stride, dtype } = target;
    const targetRow = stride * ELEMENT_BYTES[dtype];
    let notFinite = 0;
    for await (const chunk of this.chunks(stored, cols, first, count)) {
      const data = encode(padRows(chunk.values, chunk.rows, cols, stride), chunk.row);
      notFinite += countNotFinite(data instanceof Int8Array ? chunk.values : data);
      this.gpu.write(target, data, (row + chunk.row) * targetRow);
      await this.uploaded(data.byteLength);
    }
    return notFinite;
  }

  /** `count` rows of a stored tensor from row `first` on, as floats, as many at a time as fit a chunk. */
  private async *chunks(
    stored: StoredTensor,
    cols: number,
    first: number,
    count: number,
  ): AsyncGenerator<{ readonly values: Float32Array; readonly row: number; readonly rows: number }> {
    const storedRow = cols * DTYPE_BYTES[stored.dtype];
    const chunkRows = Math.max(1, Math.floor(CHUNK_BYTES / storedRow));
    for (let row = 0; row < count; row += chunkRows) {
      const rows = Math.min(chunkRows, count - row);
      const begin = (first + row) * storedRow;
      const bytes = await stored.read(begin, begin + rows * storedRow);
      yield { values: widenStored(bytes, stored.dtype), row, rows };
      this.done += bytes.byteLength;
      this.options.onProgress?.(this.done, this.total);
    }
  }

  private async uploaded(bytes: number): Promise<void> {
    this.inFlight += bytes;
    if (this.inFlight < MAX_IN_FLIGHT_BYTES) return;
    await this.gpu.finish();
    this.inFlight = 0;
  }

  private reportNotFinite(name: string, count: number): void {
    if (count === 0) return;
    const what = `\`${name}\` has ${count} values that are NaN or infinite`;
    const error = new CheckpointError("MODEL_NAN", this.file, what);
    if (this.options.strict) throw error;
    this.options.onWarning?.(error.message);
  }
}

/** Padded rows of floats, the first of them row `row` of the tensor, as the bytes that go to the GPU. */
type Encoder = (padded: Float32Array, row: number) => Float32Array | Uint16Array | Int8Array;

const asFloats: Encoder = (padded) => padded;

/** Makes bytes of a table's rows and notes their scales in `scales`, which has one for each row of the block. */
function rowEncoder({ stride }: Tensor, scales: Float32Array): Encoder {
  return (padded, row) => {
    const own = scales.subarray(row, row + padded.length / stride);
    raiseScales(padded, stride, "row", own);
    return quantize(padded, stride, "row", own);
  };
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
