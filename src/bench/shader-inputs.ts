import { check } from "../check.ts";
import { philox4x32 } from "../generate/random.ts";
import type { Gpu } from "../gpu/gpu.ts";
import type { Allocation } from "../gpu/memory.ts";
import { narrowToHalf, widenHalf } from "../half.ts";
import type { Table } from "../ops/storage.ts";
import { ELEMENT_BYTES, product, rowStride, shapeText, Tensor, tensorBytes } from "../tensor.ts";

// Inputs for timing kernels: arenas of random numbers, one of floats, one of halves and one of bytes, and tensors that are
// views of them. A kernel can so be given many sets of inputs, none of which the GPU's cache still holds, for one upload.

/** Element `index` of a tensor, row-major and without padding, as the GPU has it stored. */
export type Values = (index: number) => number;

export interface Input {
  readonly tensor: Tensor;
  readonly at: Values;
}

/** The tensors of a linear layer, and the values of both without scales. */
export interface RandomLinear {
  readonly weight: Tensor;
  readonly bias: Tensor;
  readonly at: { readonly w: Values; readonly bias: Values };
}

/**
 * An arena repeats this many numbers. Four times a prime, so that no row of weights begins like the one before it; four, so
 * that bytes fill whole words.
 */
const PERIOD = 4 * 65_537;

/** WebGPU wants bindings to begin at multiples of this, in bytes. */
const ALIGN = 256;

/** How an arena stores its numbers. A byte q stands for q / 127; what scales it is another input. */
export type Storage = "f32" | "f16" | "i8";

/** Of each storage its own, so that a result of one never passes for a result of the other. */
const SEED: Record<Storage, number> = { f32: 1, f16: 2, i8: 3 };

/** Numbers in [-1, 1) as an arena holds them, and as a kernel then reads them. */
function storeAs(numbers: Float32Array, dtype: Storage) {
  if (dtype === "f32") return { stored: numbers, values: numbers };
  if (dtype === "i8") {
    const stored = Int8Array.from(numbers, (x) => Math.round(127 * x));
    return { stored, values: Float64Array.from(stored, (q) => q / 127) };
  }
  const stored = narrowToHalf(numbers);
  return { stored, values: widenHalf(stored) };
}

/** `count` numbers, uniform in [-1, 1), the same for the same seed everywhere. */
function randomNumbers(count: number, seed: number): Float32Array {
  const numbers = new Float32Array(count);
  for (let i = 0; i < count; i += 4)
    philox4x32([i, 0, 0, 0], [seed, 0]).forEach((word, j) => {
      if (i + j < count) numbers[i + j] = word / 2 ** 31 - 1;
    });
  return numbers;
}

/** GPU memory full of random numbers, in pieces that each fit a binding; views are handed out in order, then again. */
class Arena {
  private readonly gpu: Gpu;
  private readonly dtype: Storage;
  private readonly values: Float32Array | Float64Array;
  private readonly pieces: Allocation[] = [];
  private piece = 0;
  private offset = 0;

  constructor(gpu: Gpu, dtype: Storage, bytes: number) {
    this.gpu = gpu;
    this.dtype = dtype;
    const { stored, values } = storeAs(randomNumbers(PERIOD, SEED[dtype]), dtype);
    this.values = values;
    const largest = Math.floor(gpu.maxBindingBytes / ALIGN) * ALIGN;
    try {
      for (let left = bytes; left > 0; left -= largest) this.fill(Math.min(left, largest), stored);
    } catch (error) {
      this.free();
      throw error;
    }
  }

  private fill(bytes: number, stored: Float32Array | Uint16Array | Int8Array): void {
    const allocation = this.gpu.memory.alloc(bytes, "weights", `random ${this.dtype}`);
    this.pieces.push(allocation);
    const range = { allocation, offset: 0, bytes };
    for (let at = 0; at < bytes; at += stored.byteLength)
      this.gpu.write(range, stored.subarray(0, (bytes - at) / ELEMENT_BYTES[this.dtype]), at);
  }

  rewind(): void {
    this.piece = 0;
    this.offset = 0;
  }

  view(shape: readonly number[]): Input {
    const bytes = tensorBytes(shape, this.dtype);
    const fits = () => this.offset + bytes <= this.pieces[this.piece]!.bytes;
    for (let tried = 0; !fits() && tried <= this.pieces.length; tried++) {
      this.piece = (this.piece + 1) % this.pieces.length;
      this.offset = 0;
    }
    check(fits(), () => `shader inputs: ${this.dtype} ${shapeText(shape)} does not fit the arena`);
    const first = this.offset / ELEMENT_BYTES[this.dtype];
    const tensor = new Tensor(this.gpu, shape, this.dtype, this.pieces[this.piece]!, this.offset);
    this.offset += Math.ceil(bytes / ALIGN) * ALIGN;
    return { tensor, at: (index) => this.values[(first + index) % PERIOD]! };
  }

  /** `rows` rows whatever the device's binding limit: blocks of rows, each a view. */
  blocks(rows: number, cols: number): { tensors: Tensor[]; at: Values } {
    const most = Math.floor(this.gpu.maxBindingBytes / (rowStride(cols) * ELEMENT_BYTES[this.dtype]));
    const inputs: Input[] = [];
    for (let first = 0; first < rows; first += most)
      inputs.push(this.view([Math.min(most, rows - first), cols]));
    const blockElements = most * cols;
    return {
      tensors: inputs.map((i) => i.tensor),
      at: (index) => inputs[Math.floor(index / blockElements)]!.at(index % blockElements),
    };
  }

  /** Numbers for a tensor that cannot be a view. */
  get numbers(): ArrayLike<number> {
    return this.values;
  }

  free(): void {
    for (const allocation of this.pieces.splice(0)) this.gpu.memory.free(allocation);
  }
}

/** Makes the inputs of one case after the other: between two of them call `release`, at the end `free`. */
export class ShaderInputs {
  readonly gpu: Gpu;
  private readonly arenas: Record<Storage, Arena>;
  private readonly own: Tensor[] = [];

  /** Takes three times `bytes` of GPU memory, for floats, for halves and for bytes. Throws OutOfMemory. */
  constructor(gpu: Gpu, bytes: number) {
    this.gpu = gpu;
    const made: Arena[] = [];
    const arena = (dtype: Storage) => {
      made.push(new Arena(gpu, dtype, bytes));
      return made.at(-1)!;
    };
    try {
      this.arenas = { f32: arena("f32"), f16: arena("f16"), i8: arena("i8") };
    } catch (error) {
      for (const one of made) one.free();
      throw error;
    }
  }

  /** A tensor of random numbers in [-1, 1], another one with each call. Never free it. */
  random(shape: readonly number[], dtype: Storage = "f32"): Input {
    const cols = shape.at(-1)!;
    if (rowStride(cols) === cols) return this.arenas[dtype].view(shape);
    check(dtype !== "i8", () => `shader inputs: i8 ${shapeText(shape)}; bytes need columns in fours`);
    // Padding must be zero, and in an arena it is not.
    const { numbers } = this.arenas[dtype];
    const length = product(shape);
    const first = this.own.length * length;
    const at: Values = (index) => numbers[(first + index) % PERIOD]!;
    const tensor = Tensor.from(
      this.gpu,
      shape,
      Float32Array.from({ length }, (_, i) => at(i)),
      { dtype },
    );
    this.own.push(tensor);
    return { tensor, at };
  }

  /** A table of random numbers in blocks of rows, one where it fits a binding; of bytes, with scales. Never free it. */
  randomTable(rows: number, cols: number, dtype: Storage): { table: Table; at: Values } {
    check(rowStride(cols) === cols, () => `shader inputs: ${cols} columns; blocks need a multiple of 4`);
    const { tensors: blocks, at } = this.arenas[dtype].blocks(rows, cols);
    if (dtype !== "i8") return { table: { blocks }, at };
    const scales = this.random([rows]);
    return {
      table: { blocks, scales: scales.tensor },
      at: (index) => at(index) * scales.at(Math.floor(index / cols)),
    };
  }

  /**
   * A matrix of random numbers [K, N] and a bias [1, N], which has a second row of scales for the columns when the matrix
   * is bytes.
   */
  randomLinear(K: number, N: number, dtype: Storage): RandomLinear {
    const weight = this.random([K, N], dtype);
    const bias = this.random([dtype === "i8" ? 2 : 1, N]);
    const w: Values = dtype === "i8" ? (i) => weight.at(i) * bias.at(N + (i % N)) : weight.at;
    return { weight: weight.tensor, bias: bias.tensor, at: { w, bias: bias.at } };
  }

  /** Rows of integers as a u32 tensor: [n] for one row, else [rows, n]. */
  integers(rows: readonly (readonly number[])[]): Tensor {
    const cols = rows[0]!.length;
    const shape = rows.length === 1 ? [cols] : [rows.length, cols];
    const tensor = Tensor.from(this.gpu, shape, rows.flat(), { dtype: "u32" });
    this.own.push(tensor);
    return tensor;
  }

  /** A tensor of these numbers. */
  floats(shape: readonly number[], values: Float32Array): Tensor {
    const tensor = Tensor.from(this.gpu, shape, values);
    this.own.push(tensor);
    return tensor;
  }

  /** Free what the case in progress was given, and begin the arenas anew: a case has the same inputs in every run. */
  release(): void {
    for (const tensor of this.own.splice(0)) tensor.free();
    for (const arena of Object.values(this.arenas)) arena.rewind();
  }

  free(): void {
    this.release();
    for (const arena of Object.values(this.arenas)) arena.free();
  }
}

/** The integers 0 … count - 1 in a random order that never changes (Fisher and Yates). */
export function shuffledIntegers(count: number): number[] {
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = philox4x32([i, 0, 0, 0], [count, 0])[0] % (i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/** `count` random integers below `limit`, the same in every run. */
export function randomIntegers(count: number, limit: number): number[] {
  return Array.from({ length: count }, (_, i) => philox4x32([i, 1, 0, 0], [limit, 0])[0] % limit);
}
