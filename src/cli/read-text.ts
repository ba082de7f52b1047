import { closeSync, fstatSync, openSync, readFileSync } from "node:fs";
import { BadInput } from "../check.ts";

/** War and Peace is 3 MB; a model's context is a few thousand characters. */
const MAX_TEXT_BYTES = 64 * 2 ** 20;

/** A text file, or stdin for "-". Throws BadInput, which names `what`, unless it is UTF-8 of at most 64 MiB. */
export function readText(what: string, path: string): string {
  let bytes: Uint8Array;
  try {
    bytes = path === "-" ? readFileSync(0) : readFile(what, path);
  } catch (error) {
    if (error instanceof BadInput) throw error;
    throw new BadInput(`${what} cannot be read: ${(error as Error).message}`);
  }
  checkSize(what, path, bytes.byteLength);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new BadInput(`${what}: ${path} is not UTF-8 text; convert it first`);
  }
}

function readFile(what: string, path: string): Uint8Array {
  const file = openSync(path, "r");
  try {
    checkSize(what, path, fstatSync(file).size);
    return readFileSync(file);
  } finally {
    closeSync(file);
  }
}

function checkSize(what: string, path: string, bytes: number): void {
  if (bytes > MAX_TEXT_BYTES)
    throw new BadInput(`${what}: ${path} has ${bytes} bytes; wanted at most ${MAX_TEXT_BYTES}`);
}
