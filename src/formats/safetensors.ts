import { check } from "../check.ts";
import { CheckpointError } from "./checkpoint-error.ts";
import { type FileBytes, openBytes } from "./file-bytes.ts";
import { MAX_HEADER_BYTES, refuseOtherKinds, sniff } from "./magic.ts";
import { quote } from "./quote.ts";
import { type HeaderEntry, parseHeader } from "./safetensors-header.ts";
import { DTYPE_BYTES, type StoredDtype, type StoredTensor, type TensorFile } from "./tensor-file.ts";

/** The header's length stands before it: an unsigned 64-bit integer, little-endian. */
const LENGTH_BYTES = 8;

/**
 * Open a safetensors file; its header is read and checked, its data stays on disk.
 * Throws CheckpointError for every file that is not exactly as the format wants it.
 */
export async function openSafetensors(path: string): Promise<TensorFile> {
  const file = await openBytes(path);
  try {
    return await readSafetensors(file);
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** As openSafetensors, from bytes that are open already; closing the result closes them. */
export async function readSafetensors(file: FileBytes): Promise<TensorFile> {
  refuseOtherKinds(file.path, await sniff(file), "a safetensors file");
  const headerBytes = await readHeaderLength(file);
  const dataBegin = LENGTH_BYTES + headerBytes;
  const header = parseHeader(file.path, await file.read(LENGTH_BYTES, dataBegin));
  requireLayout(file.path, header.entries, file.size - dataBegin);
  const tensors = new Map<string, StoredTensor>();
  for (const entry of header.entries) tensors.set(entry.name, storedTensor(file, entry, dataBegin));
  return {
    path: file.path,
    format: "safetensors",
    tensors,
    metadata: header.metadata,
    close: () => file.close(),
  };
}

async function readHeaderLength(file: FileBytes): Promise<number> {
  if (file.size < LENGTH_BYTES) {
    const what = `file has ${file.size} bytes, needs at least ${LENGTH_BYTES}`;
    throw new CheckpointError("HEADER_TOO_SMALL", file.path, what);
  }
  const bytes = await file.read(0, LENGTH_BYTES);
  const length = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  const left = file.size - LENGTH_BYTES;
  if (length === 0n) {
    throw new CheckpointError("HEADER_EMPTY", file.path, "header says 0 bytes, needs at least 2");
  }
  if (length > BigInt(MAX_HEADER_BYTES)) {
    const what = `header says ${length} bytes, limit ${MAX_HEADER_BYTES}`;
    throw new CheckpointError("HEADER_TOO_LARGE", file.path, what);
  }
  if (length > BigInt(left)) {
    throw new CheckpointError(
      "HEADER_LENGTH",
      file.path,
      `header says ${length} bytes, only ${left} left in file`,
    );
  }
  return Number(length);
}

/** The tensors, put in the order of their data, must cover it without a gap, an overlap or a rest. */
function requireLayout(file: string, entries: readonly HeaderEntry[], dataBytes: number): void {
  const sorted = [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end);
  let covered = 0;
  for (const entry of sorted) {
    if (entry.begin !== covered) {
      const what = `${quote(entry.name)} begins at ${entry.begin}, expected ${covered}`;
      throw new CheckpointError(entry.begin < covered ? "OVERLAP" : "HOLE", file, what);
    }
    requireSize(file, entry);
    covered = entry.end;
  }
  if (covered > dataBytes) {
    throw new CheckpointError("INCOMPLETE", file, `data needs ${covered} bytes, file has ${dataBytes}`);
  }
  if (covered < dataBytes) {
    throw new CheckpointError("TRAILING", file, `${dataBytes - covered} bytes after the last tensor`);
  }
}

function requireSize(file: string, entry: HeaderEntry): void {
  const tensor = `${quote(entry.name)} [${entry.shape.join(",")}] ${entry.dtype}`;
  if (entry.bits % 8n !== 0n) {
    throw new CheckpointError(
      "MISALIGNED",
      file,
      `${tensor} needs ${entry.bits} bits, which is no whole byte`,
    );
  }
  const needed = entry.bits / 8n;
  if (needed !== BigInt(entry.end - entry.begin)) {
    const what = `${tensor} needs ${needed} bytes, offsets give ${entry.end - entry.begin}`;
    throw new CheckpointError("SIZE_MISMATCH", file, what);
  }
  if (!Object.hasOwn(DTYPE_BYTES, entry.dtype)) {
    const readable = Object.keys(DTYPE_BYTES).join(", ");
    throw new CheckpointError(
      "DTYPE_UNSUPPORTED",
      file,
      `dtype of ${quote(entry.name)}: got ${entry.dtype}, expected one of ${readable}`,
    );
  }
}

function storedTensor(file: FileBytes, entry: HeaderEntry, dataBegin: number): StoredTensor {
  const { name, shape } = entry;
  const byteLength = entry.end - entry.begin;
  const first = dataBegin + entry.begin;
  return {
    name,
    dtype: entry.dtype as StoredDtype,
    shape,
    byteLength,
    async read(begin = 0, end = byteLength) {
      check(
        begin >= 0 && begin <= end && end <= byteLength,
        () => `read: bytes [${begin}, ${end}) of tensor ${quote(name)}, which has ${byteLength}`,
      );
      return file.read(first + begin, first + end);
    },
  };
}
