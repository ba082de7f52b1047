import { CheckpointError } from "./checkpoint-error.ts";
import type { FileBytes } from "./file-bytes.ts";

/** Bytes from the start of a file that tell its kind; a tar archive says so at 257. */
const HEAD_BYTES = 512;
const TAR_MAGIC_AT = 257;
/** Fewer bytes than this are a torn file rather than a file of some kind. */
const SMALLEST_TELLING = 8;
/** The safetensors format's bound for the length of a header. */
export const MAX_HEADER_BYTES = 100_000_000;

/** How files begin that people take for checkpoints; the text completes "looks like …". */
const MAGICS: readonly (readonly [begin: string, looksLike: string])[] = [
  ["PK\x03\x04", "a zip/pytorch file"],
  ["PK\x05\x06", "a zip/pytorch file (empty)"],
  ["GGUF", "a GGUF file (llama.cpp)"],
  ["\x1f\x8b\x08", "a gzip file; unpack it first"],
  ["BZh", "a bzip2 file; unpack it first"],
  ["\xfd7zXZ\0", "an xz file; unpack it first"],
  ["\x28\xb5\x2f\xfd", "a zstd file; unpack it first"],
  ["7z\xbc\xaf\x27\x1c", "a 7-Zip file; unpack it first"],
  ["\x89HDF\r\n\x1a\n", "an HDF5 file (TensorFlow/Keras)"],
  ["\x93NUMPY", "a NumPy file"],
];

/** What servers send, with a page's or an error's status that was not looked at, in place of a file. */
const REFUSALS =
  /^\s*(?:(?:error:?|\d{3}:?|entry|file|repository|page|rate)\s+)?(?:not found|access |unauthorized|forbidden|invalid |bad gateway|internal server error|service unavailable|too many requests|limit exceeded)/i;

export type FileKind = "safetensors" | "zip" | "pickle" | "tar" | "json" | "lfs-pointer" | "other";

/** What a file seems to be, from its first bytes; `looksLike` completes "looks like …", empty when unknown. */
export interface FileLooks {
  readonly kind: FileKind;
  readonly looksLike: string;
}

/** Look at the first 512 bytes. Throws CheckpointError IO or IO_TRUNCATED. */
export async function sniff(file: FileBytes): Promise<FileLooks> {
  return looksOf(await file.read(0, Math.min(file.size, HEAD_BYTES)));
}

/**
 * Throw LFS_POINTER or WRONG_FORMAT when the file is plainly of another kind than `expected`.
 * What cannot be told by its first bytes passes.
 */
export function refuseOtherKinds(path: string, looks: FileLooks, expected: string): void {
  if (looks.kind === "lfs-pointer") {
    throw new CheckpointError("LFS_POINTER", path, "this is a Git LFS pointer, run git lfs pull");
  }
  if (looks.kind !== "safetensors" && looks.looksLike !== "") {
    throw new CheckpointError("WRONG_FORMAT", path, `looks like ${looks.looksLike}, expected ${expected}`);
  }
}

function looksOf(head: Uint8Array): FileLooks {
  const text = String.fromCharCode(...head);
  if (head.length < SMALLEST_TELLING) return { kind: "other", looksLike: "" };
  if (headerFollows(head)) return { kind: "safetensors", looksLike: "a safetensors file" };
  if (text.startsWith("version https://git-lfs"))
    return { kind: "lfs-pointer", looksLike: "a Git LFS pointer" };
  for (const [begin, looksLike] of MAGICS) {
    if (text.startsWith(begin)) return { kind: begin.startsWith("PK") ? "zip" : "other", looksLike };
  }
  if (isPickle(head)) return { kind: "pickle", looksLike: "a pickle/pytorch file" };
  if (text.startsWith("ustar", TAR_MAGIC_AT)) {
    return { kind: "tar", looksLike: "a tar file (or PyTorch's oldest format)" };
  }
  if (/^\s*<(?:!doctype|html|head|\?xml|!--)/i.test(text)) {
    return { kind: "other", looksLike: "an HTML page (a failed download?)" };
  }
  if (REFUSALS.test(text)) {
    return { kind: "other", looksLike: "a server's refusal in plain text (a failed download?)" };
  }
  if (/^\s*\{\s*"error"/.test(text)) {
    return { kind: "json", looksLike: "JSON text with an error (a failed download?)" };
  }
  if (/^\s*[{[]\s*(?:["{[\]}]|$)/.test(text)) return { kind: "json", looksLike: "JSON text" };
  return { kind: "other", looksLike: "" };
}

/** A plausible header length and then `{` (or the white space that readers accept before it). */
function headerFollows(head: Uint8Array): boolean {
  if (head.length < 9) return false;
  const length = new DataView(head.buffer, head.byteOffset).getBigUint64(0, true);
  return length <= BigInt(MAX_HEADER_BYTES) && /[{ \t\r\n]/.test(String.fromCharCode(head[8]!));
}

/** The opcode PROTO with a protocol from 2 to 5, and an opcode after it. */
function isPickle(head: Uint8Array): boolean {
  return head[0] === 0x80 && head[1]! >= 2 && head[1]! <= 5 && head[2] !== 0;
}
