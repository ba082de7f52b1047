import { check, shapeText } from "./check.ts";
import type { Gpu } from "./gpu/gpu.ts";
import type { Allocation, Purpose } from "./gpu/memory.ts";
import type { BufferRange } from "./gpu/recording.ts";
import { narrowToHalf, widenHalf } from "./half.ts";

export { shapeText };

/**
 * How elements are stored. "f16" is half precision, two to a u32; "i8" is a signed byte q from -127 to 127, four to a u32,
 * which stands for q / 127 times a scale that is kept elsewhere. Core WGSL widens both when a kernel reads them; kernels
 * compute in f32 whatever the storage.
 */
export type Dtype = "f32" | "f16" | "i8" | "u32";

export const ELEMENT_BYTES: Record<Dtype, number> = { f32: 4, f16: 2, i8: 1, u32: 4 };

/** Rows start at multiples of 4 elements, so that kernels can load and store four at a time. */
const ROW_ALIGN = 4;

/** Elements from one row to the next for rows of `columns`. The elements between are zero in every tensor. */
export function rowStride(columns: number): number {
  return Math.ceil(columns / ROW_ALIGN) * ROW_ALIGN;
}

export const product = (numbers: readonly number[]): number => numbers.reduce((a, b) => a * b, 1);

/**
 * Shape, dtype and a range of GPU memory, owned until `free()`.
 *
 * A tensor is rows of `cols` elements (its last axis; all other axes together are `rows`), each row padded with zeros to
 * `stride`, a multiple of 4. One of dtype u32 is a plain list of numbers, without padding.
 */
export class Tensor implements BufferRange {
  readonly gpu: Gpu;
  readonly shape: readonly number[];
  readonly dtype: Dtype;
  readonly allocation: Allocation;
  readonly offset: number;
  readonly bytes: number;
  /** Its own flag: after `free` the allocation may already belong to another tensor. */
  private freed = false;

  constructor(gpu: Gpu, shape: readonly number[], dtype: Dtype, allocation: Allocation, offset = 0) {
    this.gpu = gpu;
    this.shape = shape;
    this.dtype = dtype;
    this.allocation = allocation;
    this.offset = offset;
    this.bytes = tensorBytes(shape, dtype);
  }

  /** A tensor of undefined content. Throws OutOfMemory. */
  static empty(
    gpu: Gpu,
    shape: readonly number[],
    {
      dtype = "f32",
      purpose = "activations",
      label = "tensor",
    }: { dtype?: Dtype; purpose?: Purpose; label?: string } = {},
  ): Tensor {
    check(
      shape.length > 0 && shape.every((n) => Number.isInteger(n) && n > 0),
      () => `tensor: shape ${shapeText(shape)} needs positive integers`,
    );
    const tensor = new Tensor(gpu, shape, dtype, gpu.memory.alloc(tensorBytes(shape, dtype), purpose, label));
    scopes.get(gpu)?.at(-1)?.push(tensor);
    return tensor;
  }

  /** A tensor from numbers in row-major order, without padding: for f16 the nearest halves, for i8 the bytes themselves. */
  static from(
    gpu: Gpu,
    shape: readonly number[],
    values: ArrayLike<number>,
    options: { dtype?: Dtype; purpose?: Purpose; label?: string } = {},
  ): Tensor {
    check(
      values.length === product(shape),
      () => `tensor: ${values.length} values for shape ${shapeText(shape)}`,
    );
    const tensor = Tensor.empty(gpu, shape, options);
    gpu.write(tensor, encode(tensor, values));
    return tensor;
  }

  get cols(): number {
    return this.shape[this.shape.length - 1]!;
  }
  get rows(): number {
    return product(this.shape) / this.cols;
  }
  /** Elements from one row to the next. */
  get stride(): number {
    return this.dtype === "u32" ? this.cols : rowStride(this.cols);
  }

  /** Run what was recorded and copy the values out, without padding; halves and bytes come back as numbers. */
  async read(): Promise<Float32Array> {
    const { dtype, rows, cols, stride } = this;
    check(dtype !== "u32", "tensor: read of a u32 tensor; use readIntegers");
    const source = decode(await this.gpu.read(this), dtype);
    const values = new Float32Array(rows * cols);
    for (let r = 0; r < rows; r++) values.set(source.subarray(r * stride, r * stride + cols), r * cols);
    return values;
  }

  /** Like `read`, for dtype u32. */
  async readIntegers(): Promise<Uint32Array> {
    check(this.dtype === "u32", `tensor: readIntegers of a ${this.dtype} tensor`);
    return new Uint32Array(await this.gpu.read(this));
  }

  /** Give the memory back. Work already recorded may still use it. */
  free(): void {
    check(!this.freed, () => `tensor: ${this.allocation.label} ${shapeText(this.shape)} is freed twice`);
    this.freed = true;
    this.gpu.memory.free(this.allocation);
  }

  get isFreed(): boolean {
    return this.freed;
  }
}

/** Bytes that a tensor takes, row padding included. */
export function tensorBytes(shape: readonly number[], dtype: Dtype): number {
  const cols = shape[shape.length - 1]!;
  const rows = product(shape) / cols;
  return rows * (dtype === "u32" ? cols : rowStride(cols)) * ELEMENT_BYTES[dtype];
}

// Scopes are kept per Gpu, not globally: two engines in one process do not see each other's tensors.
const scopes = new WeakMap<Gpu, Tensor[][]>();

/**
 * Run `body` and free every tensor made in it except the one or those that it returns, also when it throws. Scopes nest: what a scope
 * returns belongs to the scope around it.
 */
export function scope<T extends Tensor | readonly Tensor[] | undefined>(gpu: Gpu, body: () => T): T {
  const stack = scopes.get(gpu) ?? [];
  scopes.set(gpu, stack);
  const made: Tensor[] = [];
  stack.push(made);
  let kept: readonly (Tensor | undefined)[] = [];
  try {
    const result = body();
    kept = result instanceof Tensor || result === undefined ? [result] : result;
    return result;
  } finally {
    stack.pop();
    for (const t of made) {
      if (kept.includes(t)) stack.at(-1)?.push(t);
      else if (!t.isFreed) t.free();
    }
  }
}

/** The bytes of a tensor's elements as floats, exactly. */
export function decode(raw: ArrayBuffer, dtype: Exclude<Dtype, "u32">): Float32Array {
  if (dtype === "f32") return new Float32Array(raw);
  return dtype === "f16" ? widenHalf(new Uint16Array(raw)) : Float32Array.from(new Int8Array(raw));
}

/** Values as the bytes of a tensor: padded rows, halves packed. */
function encode(tensor: Tensor, values: ArrayLike<number>): ArrayBufferView {
  const { rows, cols, stride, dtype } = tensor;
  if (dtype === "u32") return values instanceof Uint32Array ? values : Uint32Array.from(values);
  const padded = new Float32Array(rows * stride);
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < cols; c++) padded[r * stride + c] = values[r * cols + c]!;
  if (dtype === "i8") return Int8Array.from(padded);
  return dtype === "f32" ? padded : narrowToHalf(padded);
}
