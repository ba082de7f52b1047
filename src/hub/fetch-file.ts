// One file: verified if it is there, else downloaded into "<name>.part", checked, and renamed.
//
// @huggingface/hub's own download is not used: it keeps files in a cache under the home directory, checks no
// digest, begins anew after a cut, and takes a server that ignores Range for one that obeys it.

import { constants } from "node:fs";
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BadInput } from "../check.ts";
import { digestFile, startDigest } from "./digest.ts";
import { diskError } from "./disk-error.ts";
import type { Hub } from "./endpoint.ts";
import { Interrupted } from "./interrupted.ts";
import type { HubFile } from "./listing.ts";
import { refusal, type Wanted } from "./refusal.ts";
import { type Answer, get } from "./request.ts";

/** Waits before another attempt, in milliseconds; when they are used up, the transfer has failed. */
const RETRY_MS = [250, 1_000, 3_000];

/** An attempt that brought this many bytes was a good one: the waits begin anew. */
const PROGRESS_BYTES = 1 << 20;

export interface Source {
  readonly hub: Hub;
  readonly wanted: Wanted;
  readonly commit: string;
}

export interface Fetched {
  /** True if the file was there, and right, before. */
  readonly present: boolean;
  /** Bytes that came over the network. */
  readonly received: number;
}

/**
 * Make sure that `folder` has `file` with the right content. `onBytes` gets the bytes in place so far; it can
 * fall back to 0 when a server does not continue. Throws BadInput; aborted, the signal's reason, keeping the part.
 */
export async function fetchFile(
  source: Source,
  file: HubFile,
  folder: string,
  onBytes: (done: number) => void,
): Promise<Fetched> {
  const path = join(folder, file.name);
  const part = `${path}.part`;
  let received = 0;
  const count = (done: number, moved: number) => {
    received += moved;
    onBytes(done);
  };
  try {
    if (await isRight(path, file, source.hub.signal)) return { present: true, received };
    await withRetries(
      source,
      file,
      () => received,
      () => download(source, file, part, count),
    );
    await rename(part, path);
  } catch (error) {
    throw diskError(error, path);
  }
  return { present: false, received };
}

/** Whether `path` is a file with the size and the digest that the hub gives. */
async function isRight(path: string, file: HubFile, signal: AbortSignal | undefined): Promise<boolean> {
  const there = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  if (!there?.isFile() || there.size !== file.bytes) return false;
  const digest = startDigest(file);
  if (digest === undefined) return true;
  const handle = await open(path, "r");
  try {
    await digestFile(handle, file.bytes, digest, signal);
  } finally {
    await handle.close();
  }
  return digest.hex() === file.digest?.hex;
}

async function withRetries(
  source: Source,
  file: HubFile,
  received: () => number,
  attempt: () => Promise<void>,
) {
  for (let failures = 0; ; failures++) {
    const before = received();
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Interrupted)) throw error;
      if (received() - before >= PROGRESS_BYTES) failures = 0;
      if (failures >= RETRY_MS.length) {
        throw new BadInput(
          `${source.wanted.repo}/${file.name}: ${error.message}; run the command again to continue, or set HF_ENDPOINT to a mirror of the hub`,
        );
      }
      await sleep(RETRY_MS[failures], undefined, { signal: source.hub.signal }).catch((aborted) => {
        throw source.hub.signal?.reason ?? aborted;
      });
    }
  }
}

/** One attempt: continue the part if there is one, and check it when it is whole. */
async function download(
  source: Source,
  file: HubFile,
  part: string,
  count: (done: number, moved: number) => void,
) {
  const handle = await open(part, constants.O_RDWR | constants.O_CREAT, 0o644);
  let right: boolean;
  try {
    right = await fill(source, file, handle, count);
    if (right) await handle.sync();
  } finally {
    await handle.close();
  }
  if (right) return;
  await rm(part, { force: true });
  throw new BadInput(
    `${source.wanted.repo}/${file.name}: its ${file.digest?.algorithm} is not the one that ${source.hub.endpoint} lists; the download was deleted: pull again, or try another endpoint (HF_ENDPOINT)`,
  );
}

/** Bring the part to its full length. Returns whether its digest is the listed one. */
async function fill(
  source: Source,
  file: HubFile,
  handle: FileHandle,
  count: (done: number, moved: number) => void,
): Promise<boolean> {
  const { hub, wanted, commit } = source;
  let digest = startDigest(file);
  let done = (await handle.stat()).size;
  const restart = async () => {
    await handle.truncate(0);
    digest = startDigest(file);
    done = 0;
  };
  // Longer than the file: the part of another revision.
  if (done > file.bytes) await restart();
  if (digest) await digestFile(handle, done, digest, hub.signal);
  count(done, 0);
  if (done < file.bytes) {
    const address = new URL(
      `${hub.endpoint}/${wanted.repo}/resolve/${commit}/${encodeURIComponent(file.name)}`,
    );
    // Compressed in transit, neither lengths nor ranges would be those of the file.
    const headers = { "accept-encoding": "identity", ...(done > 0 ? { range: `bytes=${done}-` } : {}) };
    await get(hub, address, headers, async (answer) => {
      if (answer.status === 416) {
        await restart();
        throw new Interrupted(`${answer.url.origin} does not continue a download (416)`);
      }
      if (!answer.ok)
        throw refusal(hub, { ...wanted, file: file.name }, answer.status, answer.headers, answer.url);
      checkLength(answer, file, done, source);
      if (answer.status !== 206 && done > 0) await restart();
      for await (const chunk of answer.chunks()) {
        if (done + chunk.length > file.bytes)
          throw wrongLength(answer, file, `more than ${file.bytes}`, source);
        await writeAll(handle, chunk, done);
        digest?.update(chunk);
        done += chunk.length;
        count(done, chunk.length);
      }
      if (done < file.bytes)
        throw new Interrupted(
          `${answer.url.origin} closed the connection after ${done} of ${file.bytes} bytes`,
        );
    });
  }
  return digest === undefined || digest.hex() === file.digest?.hex;
}

/** Refuse an answer that says, before its first byte, that it is not the rest of this file. */
function checkLength(answer: Answer, file: HubFile, done: number, source: Source): void {
  if (answer.status === 206) {
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(answer.headers.get("content-range") ?? "");
    const total = range?.[2] ?? "an unknown number of";
    if (range === null || Number(range[1]) !== done || (total !== "*" && Number(total) !== file.bytes)) {
      throw wrongLength(answer, file, total, source);
    }
    return;
  }
  const length = answer.headers.get("content-length");
  if (length !== null && answer.headers.get("content-encoding") === null && Number(length) !== file.bytes) {
    throw wrongLength(answer, file, length, source);
  }
}

function wrongLength(answer: Answer, file: HubFile, length: string, source: Source): BadInput {
  const type = answer.headers.get("content-type") ?? "an unnamed type";
  return new BadInput(
    `${source.wanted.repo}/${file.name}: ${answer.url.origin} sends ${length} bytes (${type}), the list says ${file.bytes}; try another endpoint (HF_ENDPOINT)`,
  );
}

/** A write may take fewer bytes than it is given. */
async function writeAll(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    at += (await handle.write(bytes, at, bytes.length - at, position + at)).bytesWritten;
  }
}
