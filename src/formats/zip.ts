import type { CheckpointError } from "./checkpoint-error.ts";
import { crc32 } from "./crc32.ts";
import type { FileBytes } from "./file-bytes.ts";
import { quote } from "./quote.ts";
import { type DirectoryEntry, FLAG_DESCRIPTOR, readDirectory } from "./zip-directory.ts";
import { fault, IN_ZIP64_32 } from "./zip-end.ts";

/** One stored file of a zip: bytes [begin, begin + size) of the archive. */
export interface ZipEntry {
  readonly name: string;
  readonly begin: number;
  readonly size: number;
  readonly crc: number;
}

const LOCAL_SIGNATURE = 0x04034b50;
const LOCAL_BYTES = 30;
/** Bytes held in memory while a checksum is computed. */
const CRC_CHUNK = 1 << 22;

/**
 * The entries of a zip whose data is stored, not compressed, as torch.save writes it. Reads the directory and the
 * local headers; data stays on disk. Stricter than other readers, so that no other reader can see another archive:
 * the first entry begins at byte 0, there is one end record, local headers repeat the directory, nothing overlaps.
 * Throws CheckpointError ZIP_*.
 */
export async function readZip(file: FileBytes): Promise<ReadonlyMap<string, ZipEntry>> {
  await requireStart(file);
  const { entries, directoryBegin } = await readDirectory(file);
  const sorted = [...entries].sort((a, b) => a.offset - b.offset || a.size - b.size);
  requirePlaces(file, sorted, directoryBegin);
  const found = new Map<string, ZipEntry>();
  let previousEnd = 0;
  for (const entry of sorted) {
    if (entry.offset < previousEnd) throw overlap(file, entry.name, entry.offset, previousEnd);
    const begin = await readLocalHeader(file, entry, directoryBegin);
    previousEnd = begin + entry.size;
    if (previousEnd > directoryBegin) throw truncated(file, entry.name, previousEnd, directoryBegin);
    found.set(entry.name, { name: entry.name, begin, size: entry.size, crc: entry.crc });
  }
  return found;
}

/** Read the entry in pieces of 4 MiB and compare its checksum. Throws CheckpointError ZIP_CRC. */
export async function verifyCrc(file: FileBytes, entry: ZipEntry): Promise<void> {
  const end = entry.begin + entry.size;
  let crc = 0;
  for (let at = entry.begin; at < end; at += CRC_CHUNK) {
    crc = crc32(await file.read(at, Math.min(end, at + CRC_CHUNK)), crc);
  }
  requireCrc(file, entry, crc);
}

/** The whole entry, its checksum compared; for small entries. Throws CheckpointError ZIP_CRC, ZIP_SIZE. */
export async function readEntry(file: FileBytes, entry: ZipEntry, maxBytes: number): Promise<Uint8Array> {
  if (entry.size > maxBytes) {
    const what = `entry ${quote(entry.name)}: got ${entry.size} bytes, expected at most ${maxBytes}`;
    throw fault(file, "ZIP_SIZE", what);
  }
  const bytes = await file.read(entry.begin, entry.begin + entry.size);
  requireCrc(file, entry, crc32(bytes));
  return bytes;
}

function requireCrc(file: FileBytes, entry: ZipEntry, crc: number): void {
  if (crc === entry.crc) return;
  const what = `checksum of entry ${quote(entry.name)}: got ${hex(crc)}, expected ${hex(entry.crc)}`;
  throw fault(file, "ZIP_CRC", `${what}; the file is damaged, fetch it again`);
}

async function requireStart(file: FileBytes): Promise<void> {
  const head = await file.read(0, Math.min(4, file.size));
  if (
    head.length === 4 &&
    new DataView(head.buffer, head.byteOffset).getUint32(0, true) === LOCAL_SIGNATURE
  ) {
    return;
  }
  const got = head.length === 0 ? "nothing" : [...head].map((byte) => byte.toString(16)).join(" ");
  throw fault(
    file,
    "ZIP_PREFIX",
    `first bytes: got ${got}, expected 50 4b 3 4; no zip entry begins at byte 0`,
  );
}

/** What the directory alone shows: entries that lie outside, or in one another, before any of them is opened. */
function requirePlaces(file: FileBytes, sorted: readonly DirectoryEntry[], directoryBegin: number): void {
  const first = sorted[0];
  if (first !== undefined && first.offset !== 0) {
    const what = `first entry ${quote(first.name)}: got byte ${first.offset}, expected 0`;
    throw fault(file, "ZIP_PREFIX", `${what}; something else stands before the zip`);
  }
  let previousEnd = 0;
  for (const { name, offset, size } of sorted) {
    const least = offset + LOCAL_BYTES;
    if (least > directoryBegin) {
      const what = `local header of ${quote(name)}: got byte ${offset}, expected it before the directory`;
      throw fault(file, "ZIP_OFFSET", `${what} at ${directoryBegin}`);
    }
    if (least + size > directoryBegin) throw truncated(file, name, least + size, directoryBegin);
    if (offset < previousEnd) throw overlap(file, name, offset, previousEnd);
    previousEnd = least + size;
  }
}

/** Where the entry's data begins: the local header has its own extra field, which aligns the data. */
async function readLocalHeader(
  file: FileBytes,
  entry: DirectoryEntry,
  directoryBegin: number,
): Promise<number> {
  const nameBegin = entry.offset + LOCAL_BYTES;
  const nameEnd = Math.min(nameBegin + entry.rawName.length, directoryBegin);
  const bytes = await file.read(entry.offset, nameEnd);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const where = `local header of ${quote(entry.name)}`;
  if (view.getUint32(0, true) !== LOCAL_SIGNATURE) {
    const what = `${where}: got no header at byte ${entry.offset}, expected one`;
    throw fault(file, "ZIP_OFFSET", what);
  }
  const rawName = bytes.subarray(LOCAL_BYTES);
  const sameName =
    view.getUint16(26, true) === entry.rawName.length &&
    rawName.length === entry.rawName.length &&
    rawName.every((byte, i) => byte === entry.rawName[i]);
  if (!sameName) {
    const local = new TextDecoder().decode(rawName);
    const what = `${where}: got name ${quote(local)}, expected the directory's`;
    throw fault(file, "ZIP_LOCAL_NAME", what);
  }
  // What follows the data in a descriptor is zero here; all else repeats the directory.
  const described = (entry.flags & FLAG_DESCRIPTOR) !== 0;
  const same = (local: number, expected: number) => local === expected || (described && local === 0);
  const sameSize = (local: number) => same(local, entry.size) || local === IN_ZIP64_32;
  const agrees =
    view.getUint16(6, true) === entry.flags &&
    view.getUint16(8, true) === 0 &&
    same(view.getUint32(14, true), entry.crc) &&
    sameSize(view.getUint32(18, true)) &&
    sameSize(view.getUint32(22, true));
  if (!agrees) {
    const what = `${where}: got other flags, method, checksum or size than the directory, expected the same`;
    throw fault(file, "ZIP_LOCAL", what);
  }
  return nameBegin + entry.rawName.length + view.getUint16(28, true);
}

function overlap(file: FileBytes, name: string, begin: number, previousEnd: number): CheckpointError {
  const what = `entry ${quote(name)}: got begin ${begin}, expected at least ${previousEnd}`;
  return fault(file, "ZIP_OVERLAP", `${what}, the end of the entry before it`);
}

function truncated(file: FileBytes, name: string, end: number, directoryBegin: number): CheckpointError {
  const what = `entry ${quote(name)}: got an end at byte ${end}, expected at most ${directoryBegin}`;
  return fault(file, "ZIP_TRUNCATED", `${what}, where the directory begins`);
}

function hex(crc: number): string {
  return crc.toString(16).padStart(8, "0");
}
