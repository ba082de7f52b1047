import { check } from "../check.ts";
import { philox4x32 } from "../generate/random.ts";
import type { Gpu } from "../gpu/gpu.ts";
import type { Allocation } from "../gpu/memory.ts";
import { narrowToHalf, widenHalf } from "../half.ts";
import { ELEMENT_BYTES, product, rowStride, shapeText, Tensor, tensorBytes } from "../tensor.ts";

// Inputs for timing kernels: two arenas of random numbers, one of floats and one of halves, and tensors that are views of
// them. A kernel can so be given many sets of inputs, none of which the GPU's cache still holds, for one upload.

/** Element `index` of a tensor, row-major and without padding, as the GPU has it stored. */
export type Values = (index: number) => number;

export interface Input {
  readonly tensor: Tensor;
  readonly at: Values;
}

/**
 * An arena repeats this many numbers. Twice a prime, so that no row of weights begins like the one before it; even, so
 * that halves fill whole words.
 */
const PERIOD = 2 * 131_071;

/** WebGPU wants bindings to begin at multiples of this, in bytes. */
const ALIGN = 256;

/** Of floats and of halves, so that a result of one never passes for a result of the other. */
const SEED = { f32: 1, f16: 2 } as const;

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
  private readonly dtype: "f32" | "f16";
  private readonly values: Float32Array;
  private readonly pieces: Allocation[] = [];
  private piece = 0;
  private offset = 0;

  constructor(gpu: Gpu, dtype: "f32" | "f16", bytes: number) {
    this.gpu = gpu;
    this.dtype = dtype;
    const numbers = randomNumbers(PERIOD, SEED[dtype]);
    const stored = dtype === "f16" ? narrowToHalf(numbers) : numbers;
    this.values = stored instanceof Uint16Array ? widenHalf(stored) : numbers;
    const largest = Math.floor(gpu.maxBindingBytes / ALIGN) * ALIGN;
    try {
      for (let left = bytes; left > 0; left -= largest) this.fill(Math.min(left, largest), stored);
    } catch (error) {
      this.free();
      throw error;
    }
  }

  private fill(bytes: number, stored: Float32Array | Uint16Array): void {
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
  get numbers(): Float32Array {
    return this.values;
  }

  free(): void {
    for (const allocation of this.pieces.splice(0)) this.gpu.memory.free(allocation);
  }
}

/** Makes the inputs of one case after the other: between two of them call `release`, at the end `free`. */
export class ShaderInputs {
  readonly gpu: Gpu;
  private readonly arenas: Record<"f32" | "f16", Arena>;
  private readonly own: Tensor[] = [];

  /** Takes twice `bytes` of GPU memory, for floats and for halves. Throws OutOfMemory. */
  constructor(gpu: Gpu, bytes: number) {
    this.gpu = gpu;
    const f32 = new Arena(gpu, "f32", bytes);
    try {
      this.arenas = { f32, f16: new Arena(gpu, "f16", bytes) };
    } catch (error) {
      f32.free();
      throw error;
    }
  }

  /** A tensor of random numbers in [-1, 1), another one with each call. Never free it. */
  random(shape: readonly number[], dtype: "f32" | "f16" = "f32"): Input {
    const cols = shape.at(-1)!;
    if (rowStride(cols) === cols) return this.arenas[dtype].view(shape);
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

  /** A matrix of random numbers as blocks of rows, one where it fits a binding. Never free them. */
  randomBlocks(rows: number, cols: number, dtype: "f32" | "f16"): { tensors: Tensor[]; at: Values } {
    check(rowStride(cols) === cols, () => `shader inputs: ${cols} columns; blocks need a multiple of 4`);
    return this.arenas[dtype].blocks(rows, cols);
  }

  /** Rows of integers as a u32 tensor: [n] for one row, else [rows, n]. */
  integers(rows: readonly (readonly number[])[]): Tensor {
    const cols = rows[0]!.length;
    const shape = rows.length === 1 ? [cols] : [rows.length, cols];
    const tensor = Tensor.from(this.gpu, shape, rows.flat(), { dtype: "u32" });
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
