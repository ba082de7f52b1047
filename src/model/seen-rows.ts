import { check } from "../check.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { Tensor } from "../tensor.ts";

/** Which tokens each sequence with a repetition penalty has seen: a row of bits for each, which the sampler adds to. */
export class SeenRows {
  /** [rows, ceil(V / 32)] u32. */
  readonly table: Tensor;
  private readonly words: Uint32Array;
  private readonly free_: number[];
  private readonly open_ = new Set<number>();

  /** Throws OutOfMemory. */
  constructor(gpu: Gpu, rows: number, vocabSize: number) {
    const shape = [rows, Math.ceil(vocabSize / 32)];
    this.table = Tensor.empty(gpu, shape, { dtype: "u32", purpose: "tables", label: "tokens seen" });
    this.words = new Uint32Array(shape[1]!);
    this.free_ = Array.from({ length: rows }, (_, i) => rows - 1 - i);
  }

  /** A row with the bits of `tokens`, for steps launched from now on. */
  open(tokens: readonly number[]): number {
    const row = this.free_.pop();
    check(row !== undefined, () => `seen rows: all ${this.table.rows} are open; close one first`);
    this.words.fill(0);
    for (const token of tokens) this.words[token >>> 5]! |= 1 << (token & 31);
    this.table.gpu.write(this.table, this.words, row * this.words.byteLength);
    this.open_.add(row);
    return row;
  }

  close(row: number): void {
    check(this.open_.delete(row), () => `seen rows: row ${row} is not open`);
    this.free_.push(row);
  }

  isOpen(row: number): boolean {
    return this.open_.has(row);
  }

  free(): void {
    this.table.free();
  }
}
