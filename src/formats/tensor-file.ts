/** Element types that a checkpoint may store and that this engine can read, by safetensors' names. */
export type StoredDtype = "F64" | "F32" | "F16" | "BF16" | "I64" | "I32" | "I16" | "I8" | "U8" | "BOOL";

/** Bytes of one element. */
export const DTYPE_BYTES: Record<StoredDtype, number> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
};

/** One tensor of a checkpoint: known from the header, its data still on disk. */
export interface StoredTensor {
  readonly name: string;
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
  /** Bytes of the whole tensor, row-major, little-endian. */
  readonly byteLength: number;
  /** Bytes [begin, end) of the tensor's data; the whole tensor without arguments. Throws CheckpointError. */
  read(begin?: number, end?: number): Promise<Uint8Array>;
}

/** An open checkpoint: one file, or several joined by an index. Nothing but headers is in memory. */
export interface TensorFile {
  readonly path: string;
  readonly format: "safetensors" | "pytorch";
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly metadata: ReadonlyMap<string, string>;
  close(): Promise<void>;
}
