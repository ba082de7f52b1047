import { expect } from "vitest";
import { CheckpointError } from "../../src/formats/checkpoint-error.ts";
import { bytesOf } from "../../src/formats/file-bytes.ts";
import { readSafetensors } from "../../src/formats/safetensors.ts";
import type { TensorFile } from "../../src/formats/tensor-file.ts";

/** A safetensors file: `header` as it stands (text or bytes), then `data` (bytes, or so many zeros). */
export function safetensors(header: string | Uint8Array, data: number | Uint8Array = 0): Uint8Array {
  const text = typeof header === "string" ? new TextEncoder().encode(header) : header;
  return withLength(BigInt(text.length), text, data);
}

/** The same with a length of one's own choice, true or not. */
export function withLength(
  length: bigint,
  header: Uint8Array = new Uint8Array(),
  data: number | Uint8Array = 0,
): Uint8Array {
  const tail = typeof data === "number" ? new Uint8Array(data) : data;
  const file = new Uint8Array(8 + header.length + tail.length);
  new DataView(file.buffer).setBigUint64(0, length, true);
  file.set(header, 8);
  file.set(tail, 8 + header.length);
  return file;
}

/** One tensor's entry as JSON text; every part may be replaced by any JSON text. */
export function entry(dtype: string, shape: string, offsets: string): string {
  return `{"dtype":${dtype},"shape":${shape},"data_offsets":${offsets}}`;
}

/** A header with the one tensor `w`. */
export function header(dtype: string, shape: string, offsets: string): string {
  return `{"w":${entry(dtype, shape, offsets)}}`;
}

/** Open bytes under the file name `f`. */
export function openAs(bytes: Uint8Array): Promise<TensorFile> {
  return readSafetensors(bytesOf("f", bytes));
}

/** The message with which `work` fails; it must be a CheckpointError whose code stands first. */
export async function refusal(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => "nothing was thrown",
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(CheckpointError);
  const refused = error as CheckpointError;
  expect(refused.message.startsWith(`${refused.code}: ${refused.file}: `)).toBe(true);
  expect(refused.message).not.toContain("\n");
  return refused.message;
}
