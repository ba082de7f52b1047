import type { FileBytes } from "./file-bytes.ts";
import { quote } from "./quote.ts";
import { firstInvalidUtf8 } from "./utf8.ts";
import { fault, findDirectory, IN_ZIP64_32, within } from "./zip-end.ts";

/** One file as the zip's central directory describes it (APPNOTE 6.3.10, section 4.3.12). */
export interface DirectoryEntry {
  readonly name: string;
  /** The name's bytes, which the local header has to repeat. */
  readonly rawName: Uint8Array;
  readonly flags: number;
  readonly crc: number;
  /** Bytes of the data, which is stored as it is. */
  readonly size: number;
  /** Where the local header begins in the file. */
  readonly offset: number;
}

const ENTRY_SIGNATURE = 0x02014b50;
const ENTRY_BYTES = 46;
const ZIP64_EXTRA = 0x0001;
/** GPT-2 XL has 580 tensors; a directory of this many entries is no model's. */
const MAX_ENTRIES = 65_535;
const MAX_DIRECTORY_BYTES = 1 << 24;
const MAX_NAME_BYTES = 1024;
const FLAG_ENCRYPTED = 0x0001;
const FLAG_PATCH = 0x0020;
const FLAG_STRONG = 0x0040;
const FLAG_MASKED = 0x2000;
/** Sizes and CRC repeated after the data; torch sets it and leaves them zero in the local header. */
export const FLAG_DESCRIPTOR = 0x0008;
const FLAG_UTF8 = 0x0800;
const METHOD_NAMES = new Map([
  [8, "DEFLATE"],
  [9, "DEFLATE64"],
  [12, "BZIP2"],
  [14, "LZMA"],
  [93, "ZSTD"],
]);

/** The central directory's entries and where the directory begins. Throws CheckpointError ZIP_*. */
export async function readDirectory(
  file: FileBytes,
): Promise<{ entries: DirectoryEntry[]; directoryBegin: number }> {
  const range = await findDirectory(file);
  if (range.count > MAX_ENTRIES) {
    throw fault(file, "ZIP_ENTRIES", `entries: got ${range.count}, expected at most ${MAX_ENTRIES}`);
  }
  if (range.end - range.begin > MAX_DIRECTORY_BYTES) {
    const got = range.end - range.begin;
    throw fault(
      file,
      "ZIP_DIRECTORY",
      `directory: got ${got} bytes, expected at most ${MAX_DIRECTORY_BYTES}`,
    );
  }
  const bytes = await file.read(range.begin, range.end);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const entries: DirectoryEntry[] = [];
  const names = new Set<string>();
  let at = 0;
  while (at < bytes.length) {
    if (entries.length === range.count) {
      throw fault(file, "ZIP_DIRECTORY", `directory: got more than the ${range.count} entries announced`);
    }
    const { entry, end } = readEntry(file, bytes, view, at);
    if (names.has(entry.name)) {
      throw fault(file, "ZIP_DUPLICATE", `entry ${quote(entry.name)}: got two of the name, expected one`);
    }
    names.add(entry.name);
    entries.push(entry);
    at = end;
  }
  if (entries.length !== range.count) {
    throw fault(
      file,
      "ZIP_DIRECTORY",
      `directory: got ${entries.length} entries, expected ${range.count} as announced`,
    );
  }
  return { entries, directoryBegin: range.begin };
}

function readEntry(
  file: FileBytes,
  bytes: Uint8Array,
  view: DataView,
  at: number,
): { entry: DirectoryEntry; end: number } {
  if (at + ENTRY_BYTES > bytes.length || view.getUint32(at, true) !== ENTRY_SIGNATURE) {
    throw fault(file, "ZIP_DIRECTORY", `directory: got no entry at its byte ${at}, expected one`);
  }
  const nameEnd = at + ENTRY_BYTES + view.getUint16(at + 28, true);
  const extraEnd = nameEnd + view.getUint16(at + 30, true);
  const end = extraEnd + view.getUint16(at + 32, true);
  if (end > bytes.length) {
    throw fault(
      file,
      "ZIP_DIRECTORY",
      `directory: got an entry to its byte ${end}, expected ${bytes.length}`,
    );
  }
  const rawName = bytes.subarray(at + ENTRY_BYTES, nameEnd);
  const name = entryName(file, rawName);
  const flags = view.getUint16(at + 8, true);
  requireFlags(file, name, flags);
  requireStored(file, name, view.getUint16(at + 10, true));
  if (view.getUint16(at + 34, true) !== 0) {
    throw fault(file, "ZIP_DISK", `entry ${quote(name)}: got one on another disk, expected a whole archive`);
  }
  const short = {
    size: view.getUint32(at + 24, true),
    compressed: view.getUint32(at + 20, true),
    offset: view.getUint32(at + 42, true),
  };
  const { size, compressed, offset } = withZip64(file, name, short, view, nameEnd, extraEnd);
  if (size !== compressed) {
    const what = `entry ${quote(name)}: got ${compressed} bytes stored of ${size}, expected the same number`;
    throw fault(file, "ZIP_SIZE", what);
  }
  return { entry: { name, rawName, flags, crc: view.getUint32(at + 16, true), size, offset }, end };
}

type EntryPlace = Record<"size" | "compressed" | "offset", number>;

/** Values that do not fit 32 bits stand in the zip64 extra field, in this order and only those (section 4.5.3). */
function withZip64(
  file: FileBytes,
  name: string,
  short: EntryPlace,
  view: DataView,
  begin: number,
  end: number,
): EntryPlace {
  const place = { ...short };
  const missing = (["size", "compressed", "offset"] as const).filter((key) => short[key] === IN_ZIP64_32);
  let at = begin;
  while (at < end) {
    const next = at + 4 <= end ? at + 4 + view.getUint16(at + 2, true) : end + 1;
    if (next > end) {
      throw fault(file, "ZIP_EXTRA", `entry ${quote(name)}: got a cut extra field, expected a whole one`);
    }
    if (view.getUint16(at, true) === ZIP64_EXTRA && missing.length > 0) {
      let value = at + 4;
      while (missing.length > 0 && value + 8 <= next) {
        const key = missing.shift()!;
        place[key] = within(file, view.getBigUint64(value, true), `entry ${quote(name)}: zip64 ${key}`);
        value += 8;
      }
    }
    at = next;
  }
  if (missing.length > 0) {
    const what = `entry ${quote(name)}: got no zip64 ${missing[0]}, expected one as its 32-bit field is full`;
    throw fault(file, "ZIP_SIZE", what);
  }
  return place;
}

function requireFlags(file: FileBytes, name: string, flags: number): void {
  const encrypted = FLAG_ENCRYPTED | FLAG_STRONG | FLAG_MASKED;
  const shown = `got flags 0x${flags.toString(16)}`;
  if ((flags & encrypted) !== 0) {
    throw fault(file, "ZIP_ENCRYPTED", `entry ${quote(name)} is encrypted: ${shown}, expected no encryption`);
  }
  if ((flags & FLAG_PATCH) !== 0) {
    throw fault(file, "ZIP_FLAGS", `entry ${quote(name)} is patch data: ${shown}, expected plain data`);
  }
  // Bits 1 and 2 tune compression methods and say nothing about stored data.
  if ((flags & ~(FLAG_DESCRIPTOR | FLAG_UTF8 | 0x0006)) !== 0) {
    throw fault(file, "ZIP_FLAGS", `entry ${quote(name)}: ${shown}, expected at most 0x80e`);
  }
}

function requireStored(file: FileBytes, name: string, method: number): void {
  if (method === 0) return;
  const methodName = METHOD_NAMES.get(method);
  const got = methodName === undefined ? `method ${method}` : `method ${method} (${methodName})`;
  const what = `entry ${quote(name)} is compressed; re-save with torch.save: got ${got}, expected 0 (stored)`;
  throw fault(file, "ZIP_METHOD", what);
}

/** The name, when it is one that cannot lead out of a folder. Nothing is ever written under it. */
function entryName(file: FileBytes, raw: Uint8Array): string {
  if (raw.length > MAX_NAME_BYTES) {
    throw fault(file, "ZIP_NAME", `entry name: got ${raw.length} bytes, expected at most ${MAX_NAME_BYTES}`);
  }
  if (firstInvalidUtf8(raw) >= 0) throw fault(file, "ZIP_NAME", "entry name: got bytes that are not UTF-8");
  const name = new TextDecoder("utf-8", { ignoreBOM: true }).decode(raw);
  const parts = (name.endsWith("/") ? name.slice(0, -1) : name).split("/");
  const bad =
    /[\\\0]/.test(name) ||
    /^[A-Za-z]:/.test(name) ||
    parts.some((part) => part === "" || part === "." || part === "..");
  if (bad) throw fault(file, "ZIP_NAME", `entry name: got ${quote(name)}, expected a plain relative path`);
  return name;
}
