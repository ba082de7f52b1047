// The checksum of a file while it grows.

import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import type { HubFile } from "./listing.ts";

const READ_BYTES = 1 << 20;

export interface RunningDigest {
  update(bytes: Uint8Array): void;
  /** Lower-case hex of everything so far; nothing may follow. */
  hex(): string;
}

/** A digest of the kind that `file` is checked by; undefined where the hub gave none. */
export function startDigest(file: HubFile): RunningDigest | undefined {
  if (file.digest === undefined) return undefined;
  const hash = createHash(file.digest.algorithm === "sha256" ? "sha256" : "sha1");
  // git hashes a blob with its type and length in front (git-scm.com/book, "Git Objects").
  if (file.digest.algorithm === "git-sha1") hash.update(`blob ${file.bytes}\0`);
  return {
    update: (bytes) => void hash.update(bytes),
    hex: () => hash.digest("hex"),
  };
}

/** Feed the first `bytes` of an open file to `digest`. Throws the signal's reason when aborted. */
export async function digestFile(
  handle: FileHandle,
  bytes: number,
  digest: RunningDigest,
  signal: AbortSignal | undefined,
): Promise<void> {
  const buffer = new Uint8Array(Math.min(READ_BYTES, bytes));
  for (let position = 0; position < bytes; ) {
    signal?.throwIfAborted();
    const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, bytes - position), position);
    if (bytesRead === 0) return;
    digest.update(buffer.subarray(0, bytesRead));
    position += bytesRead;
  }
}
