import { CheckpointError } from "./checkpoint-error.ts";
import type { FileBytes } from "./file-bytes.ts";

/** Where the central directory lies: bytes [begin, end) of the file, `count` entries. */
export interface DirectoryRange {
  readonly begin: number;
  readonly end: number;
  readonly count: number;
}

const END_SIGNATURE = 0x06054b50;
const END_BYTES = 22;
const END64_SIGNATURE = 0x06064b50;
const END64_BYTES = 56;
const LOCATOR_SIGNATURE = 0x07064b50;
const LOCATOR_BYTES = 20;
const MAX_COMMENT = 0xffff;
/** A 16- or 32-bit field with all bits set says that the value stands in a zip64 field. */
const IN_ZIP64_16 = 0xffff;
export const IN_ZIP64_32 = 0xffffffff;

/** True when an end record stands at the end of the file, whatever comes before it. */
export async function hasEndRecord(file: FileBytes): Promise<boolean> {
  const { view } = await readTail(file);
  return endRecordsIn(view).length > 0;
}

/** Find the central directory through the one end record (APPNOTE 6.3.10, sections 4.3.14 to 4.3.16). Throws ZIP_*. */
export async function findDirectory(file: FileBytes): Promise<DirectoryRange> {
  const { begin: tailBegin, view } = await readTail(file);
  const found = endRecordsIn(view)[0];
  if (found === undefined) {
    throw fault(
      file,
      "ZIP_END",
      "no end record: got none, expected one; the file is cut off or still loading",
    );
  }
  // A second end record inside the comment would show other readers another archive.
  for (let at = found + END_BYTES; at + 4 <= view.byteLength; at++) {
    if (view.getUint32(at, true) === END_SIGNATURE) {
      throw fault(file, "ZIP_END_TWICE", "end record: got a second one inside its comment, expected one");
    }
  }
  const end = tailBegin + found;
  const disks = [view.getUint16(found + 4, true), view.getUint16(found + 6, true)];
  const counts = [view.getUint16(found + 8, true), view.getUint16(found + 10, true)];
  const size = view.getUint32(found + 12, true);
  const begin = view.getUint32(found + 16, true);
  const long = await readEnd64(file, end);
  if (long === undefined) {
    requireOneDisk(file, disks[0]!, disks[1]!, counts[0] === counts[1]);
    return directoryRange(file, begin, size, counts[0]!, end);
  }
  const agrees =
    (counts[1] === long.count || counts[1] === IN_ZIP64_16) &&
    (size === long.size || size === IN_ZIP64_32) &&
    (begin === long.begin || begin === IN_ZIP64_32);
  if (!agrees) {
    throw fault(
      file,
      "ZIP_DIRECTORY",
      "end record: got other values than in its zip64 form, expected the same",
    );
  }
  return directoryRange(file, long.begin, long.size, long.count, end - LOCATOR_BYTES - END64_BYTES);
}

async function readTail(file: FileBytes): Promise<{ begin: number; view: DataView }> {
  const begin = Math.max(0, file.size - END_BYTES - MAX_COMMENT);
  const tail = await file.read(begin, file.size);
  return { begin, view: new DataView(tail.buffer, tail.byteOffset, tail.length) };
}

/** Offsets in the file's tail of end records whose comment reaches exactly to the end of the file. */
function endRecordsIn(tail: DataView): number[] {
  const found: number[] = [];
  for (let at = 0; at + END_BYTES <= tail.byteLength; at++) {
    if (tail.getUint32(at, true) !== END_SIGNATURE) continue;
    if (at + END_BYTES + tail.getUint16(at + 20, true) === tail.byteLength) found.push(at);
  }
  return found;
}

/** The zip64 end record, which stands with its locator right before the end record at `end`; torch writes both. */
async function readEnd64(
  file: FileBytes,
  end: number,
): Promise<{ begin: number; size: number; count: number } | undefined> {
  if (end < LOCATOR_BYTES + END64_BYTES) return undefined;
  const begin = end - LOCATOR_BYTES - END64_BYTES;
  const bytes = await file.read(begin, end);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint32(END64_BYTES, true) !== LOCATOR_SIGNATURE) return undefined;
  const recordAt = view.getBigUint64(END64_BYTES + 8, true);
  if (recordAt !== BigInt(begin) || view.getUint32(0, true) !== END64_SIGNATURE) {
    throw fault(
      file,
      "ZIP_DIRECTORY",
      `zip64 end record: got one at byte ${recordAt}, expected it at ${begin}`,
    );
  }
  const sameCount = view.getBigUint64(24, true) === view.getBigUint64(32, true);
  requireOneDisk(file, view.getUint32(16, true), view.getUint32(20, true), sameCount);
  return {
    count: within(file, view.getBigUint64(32, true), "zip64 count of entries"),
    size: within(file, view.getBigUint64(40, true), "zip64 size of the directory"),
    begin: within(file, view.getBigUint64(48, true), "zip64 offset of the directory"),
  };
}

function requireOneDisk(file: FileBytes, disk: number, directoryDisk: number, sameCount: boolean): void {
  if (disk === 0 && directoryDisk === 0 && sameCount) return;
  throw fault(file, "ZIP_DISK", "archive: got a part of several disks, expected a whole one");
}

function directoryRange(
  file: FileBytes,
  begin: number,
  size: number,
  count: number,
  end: number,
): DirectoryRange {
  if (begin + size !== end) {
    const got = `bytes [${begin}, ${begin + size})`;
    throw fault(file, "ZIP_DIRECTORY", `directory: got ${got}, expected it to end at ${end}, the end record`);
  }
  return { begin, end, count };
}

/** A 64-bit value that counts bytes or entries of this file, so it cannot exceed the file's size. */
export function within(file: FileBytes, value: bigint, what: string): number {
  if (value <= BigInt(file.size)) return Number(value);
  throw fault(file, "ZIP_SIZE", `${what}: got ${value}, expected at most the file's size ${file.size}`);
}

/** An error about this zip. */
export function fault(file: FileBytes, code: string, detail: string): CheckpointError {
  return new CheckpointError(code, file.path, detail);
}
