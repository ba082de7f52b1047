import { constants, type Stats } from "node:fs";
import { type FileHandle, open, readdir, stat } from "node:fs/promises";
import { CheckpointError } from "./checkpoint-error.ts";

/** The bytes of one file, read by range: whatever is not asked for stays on disk. */
export interface FileBytes {
  /** Where the bytes come from, as error messages name it. */
  readonly path: string;
  /** Bytes in the file when it was opened. */
  readonly size: number;
  /**
   * A fresh copy of bytes [begin, end). Throws CheckpointError: IO_TRUNCATED when the range is not (or no longer)
   * in the file, IO when the system cannot read it.
   */
  read(begin: number, end: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** One system call moves at most this much: Node refuses lengths of 2 GiB and more. */
const MAX_READ = 1 << 30;

/**
 * Open a regular file for ranged reads.
 * Throws CheckpointError IO when the path is missing, unreadable or not a regular file; never waits for a writer
 * (a FIFO) and never reads without end (/dev/zero).
 */
export async function openBytes(path: string): Promise<FileBytes> {
  const handle = await openRegular(path);
  try {
    // Asked again through the handle: the name may have changed hands since the first look.
    const info = await attempt(path, () => handle.stat());
    requireRegular(path, info);
    return fileBytes(path, info.size, handle);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** The bytes of an array as a file; `name` stands in error messages. */
export function bytesOf(name: string, bytes: Uint8Array): FileBytes {
  return {
    path: name,
    size: bytes.length,
    async read(begin, end) {
      requireRange(name, bytes.length, begin, end);
      // Not bytes.slice: a Buffer's slice shares its memory.
      return new Uint8Array(bytes.subarray(begin, end));
    },
    async close() {},
  };
}

/** The names in a folder; undefined when `path` is no folder. Throws CheckpointError IO. */
export async function listFolder(path: string): Promise<ReadonlySet<string> | undefined> {
  const info = await attempt(path, () => stat(path));
  return info.isDirectory() ? new Set(await attempt(path, () => readdir(path))) : undefined;
}

function fileBytes(path: string, size: number, handle: FileHandle): FileBytes {
  let closed = false;
  return {
    path,
    size,
    async read(begin, end) {
      requireRange(path, size, begin, end);
      if (closed) throw new CheckpointError("IO", path, "the file is closed already");
      const bytes = allocate(path, end - begin);
      let filled = 0;
      while (filled < bytes.length) {
        const want = Math.min(bytes.length - filled, MAX_READ);
        const { bytesRead } = await attempt(path, () => handle.read(bytes, filled, want, begin + filled));
        if (bytesRead === 0) {
          const got = begin + filled;
          throw new CheckpointError(
            "IO_TRUNCATED",
            path,
            `file ended at byte ${got}, expected ${size} bytes`,
          );
        }
        filled += bytesRead;
      }
      return bytes;
    },
    async close() {
      if (closed) return;
      closed = true;
      await handle.close();
    },
  };
}

async function openRegular(path: string): Promise<FileHandle> {
  // Looked at before it is opened, because opening a device can already have an effect.
  requireRegular(path, await attempt(path, () => stat(path)));
  // Should a FIFO take the name after the look, O_NONBLOCK (absent on Windows) returns at once without a writer.
  const flags = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);
  return attempt(path, () => open(path, flags));
}

function requireRegular(path: string, info: Stats): void {
  if (info.isFile()) return;
  throw new CheckpointError("IO", path, `not a regular file: got ${kindOf(info)}, expected a model file`);
}

function kindOf(info: Stats): string {
  if (info.isDirectory()) return "a directory";
  if (info.isFIFO()) return "a FIFO";
  if (info.isSocket()) return "a socket";
  return "a device";
}

function requireRange(path: string, size: number, begin: number, end: number): void {
  if (Number.isSafeInteger(begin) && Number.isSafeInteger(end) && begin >= 0 && begin <= end && end <= size)
    return;
  throw new CheckpointError("IO_TRUNCATED", path, `bytes [${begin}, ${end}) wanted, file has ${size}`);
}

function allocate(path: string, length: number): Uint8Array {
  try {
    return new Uint8Array(length);
  } catch (error) {
    throw new CheckpointError("IO", path, `no memory for ${length} bytes: ${reason(error)}`);
  }
}

async function attempt<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new CheckpointError("IO", path, `cannot read: ${reason(error)}`);
  }
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
