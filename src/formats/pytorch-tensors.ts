import { check } from "../check.ts";
import { CheckpointError } from "./checkpoint-error.ts";
import type { FileBytes } from "./file-bytes.ts";
import {
  describe,
  isKind,
  type PickleDict,
  type PickleStorage,
  type PickleTensor,
  type PickleValue,
} from "./pickle-values.ts";
import { quote } from "./quote.ts";
import { DTYPE_BYTES, type StoredTensor, type TensorFile } from "./tensor-file.ts";

/** Where a storage's data lies in the file, and a check of it that runs once, before the first read. */
export interface StorageData {
  readonly begin: number;
  verify(): Promise<void>;
}

/** Training scripts put the state dict under one of these keys of a larger dict. */
const WRAPPERS: readonly string[] = ["state_dict", "model", "model_state_dict"];
/** Bytes of a column-major matrix held in memory beside the rows that are asked for. */
const TRANSPOSE_BLOCK = 1 << 22;
/** Names that a message or the metadata lists before it says "and more". */
const MAX_LISTED = 8;

/**
 * The tensors of an unpickled state dict under their own names; `locate` tells where each storage's data is.
 * Entries that are no tensors (an epoch, an optimizer) are named in the metadata and otherwise left alone.
 * Throws CheckpointError PICKLE_ROOT, TENSOR_STRIDE and what `locate` throws.
 */
export function tensorFile(
  file: FileBytes,
  root: PickleValue,
  locate: (storage: PickleStorage) => StorageData,
): TensorFile {
  const { dict, wrapper } = stateDict(file.path, root);
  const located = new Map<PickleStorage, StorageData>();
  const tensors = new Map<string, StoredTensor>();
  const ignored: string[] = [];
  for (const [name, value] of dict.items) {
    if (!isKind(value, "tensor")) {
      ignored.push(name);
      continue;
    }
    const data = located.get(value.storage) ?? locate(value.storage);
    located.set(value.storage, data);
    tensors.set(name, storedTensor(file, name, value, data));
  }
  const metadata = new Map<string, string>();
  if (wrapper !== undefined) metadata.set("wrapper", wrapper);
  if (ignored.length > 0) metadata.set("ignored", list(ignored));
  return { path: file.path, format: "pytorch", tensors, metadata, close: () => file.close() };
}

/** The dict that holds the tensors: the root, or what stands under one of the wrappers' keys. */
function stateDict(file: string, root: PickleValue): { dict: PickleDict; wrapper?: string } {
  if (!isKind(root, "dict")) {
    throw new CheckpointError("PICKLE_ROOT", file, `root: got ${describe(root)}, expected a dict of tensors`);
  }
  const own = countTensors(root);
  const wrappers = WRAPPERS.filter((key) => isKind(root.items.get(key), "dict"));
  const dict = root.items.get(wrappers[0] ?? "");
  // A loss or a step beside the model may be a tensor too: the dict with more of them is the model.
  if (wrappers.length === 1 && isKind(dict, "dict") && countTensors(dict) > own)
    return { dict, wrapper: wrappers[0] };
  if (own > 0) return { dict: root };
  const got = root.items.size === 0 ? "an empty dict" : `a dict of ${list([...root.items.keys()])}`;
  const expected = `tensors, or a dict of them under one of ${WRAPPERS.join(", ")}`;
  throw new CheckpointError("PICKLE_ROOT", file, `root: got ${got}, expected ${expected}`);
}

function countTensors(dict: PickleDict): number {
  let count = 0;
  for (const value of dict.items.values()) if (isKind(value, "tensor")) count++;
  return count;
}

function list(names: readonly string[]): string {
  const shown = names.slice(0, MAX_LISTED).map(quote).join(", ");
  return names.length > MAX_LISTED ? `${shown} and ${names.length - MAX_LISTED} more` : shown;
}

function storedTensor(file: FileBytes, name: string, tensor: PickleTensor, data: StorageData): StoredTensor {
  const { dtype } = tensor.storage;
  const { shape } = tensor;
  const elementBytes = DTYPE_BYTES[dtype];
  const byteLength = shape.reduce((product, length) => product * length, elementBytes);
  const first = data.begin + tensor.offset * elementBytes;
  const layout = layoutOf(file.path, name, tensor);
  return {
    name,
    dtype,
    shape,
    byteLength,
    async read(begin = 0, end = byteLength) {
      check(
        begin >= 0 && begin <= end && end <= byteLength,
        () => `read: bytes [${begin}, ${end}) of tensor ${quote(name)}, which has ${byteLength}`,
      );
      await data.verify();
      if (layout === "rows") return file.read(first + begin, first + end);
      return readTransposed(file, { first, rows: shape[0]!, cols: shape[1]!, elementBytes }, begin, end);
    },
  };
}

/** "rows" when the data lies as the shape reads, "columns" for a transposed matrix. Throws TENSOR_STRIDE otherwise. */
function layoutOf(file: string, name: string, { shape, stride }: PickleTensor): "rows" | "columns" {
  if (shape.includes(0) || isPacked(shape, stride)) return "rows";
  if (shape.length === 2 && isPacked([...shape].reverse(), [...stride].reverse())) return "columns";
  const got = `[${stride.join(",")}] for shape [${shape.join(",")}]`;
  const what = `strides of ${quote(name)}: got ${got}, expected contiguous data or a transposed matrix`;
  throw new CheckpointError("TENSOR_STRIDE", file, `${what}; save tensor.contiguous()`);
}

/** The last axis is the innermost, each other steps over those after it; an axis of length 1 may say any stride. */
function isPacked(shape: readonly number[], stride: readonly number[]): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && stride[axis] !== expected) return false;
    expected *= shape[axis]!;
  }
  return true;
}

/** A matrix [rows, cols] stored column after column from byte `first`. */
interface ColumnMatrix {
  readonly first: number;
  readonly rows: number;
  readonly cols: number;
  readonly elementBytes: number;
}

/** Bytes [begin, end) of the matrix written row after row. Reads whole columns, a block of them at a time. */
async function readTransposed(
  file: FileBytes,
  matrix: ColumnMatrix,
  begin: number,
  end: number,
): Promise<Uint8Array> {
  const { first, rows, cols, elementBytes } = matrix;
  const rowBytes = cols * elementBytes;
  const columnBytes = rows * elementBytes;
  const firstRow = Math.floor(begin / rowBytes);
  const lastRow = Math.ceil(end / rowBytes);
  const out = new Uint8Array((lastRow - firstRow) * rowBytes);
  // A column longer than a block is read in part: only the rows that are wanted.
  const columnsAtOnce = Math.max(1, Math.floor(TRANSPOSE_BLOCK / columnBytes));
  for (let col = 0; col < cols && firstRow < lastRow; col += columnsAtOnce) {
    const count = Math.min(columnsAtOnce, cols - col);
    const blockBegin = col * columnBytes + firstRow * elementBytes;
    const blockEnd = (col + count - 1) * columnBytes + lastRow * elementBytes;
    const block = await file.read(first + blockBegin, first + blockEnd);
    for (let i = 0; i < count; i++) {
      for (let row = firstRow; row < lastRow; row++) {
        const from = i * columnBytes + (row - firstRow) * elementBytes;
        const to = (row - firstRow) * rowBytes + (col + i) * elementBytes;
        for (let byte = 0; byte < elementBytes; byte++) out[to + byte] = block[from + byte]!;
      }
    }
  }
  const skip = begin - firstRow * rowBytes;
  return out.subarray(skip, skip + end - begin);
}
