import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll } from "vitest";

/** The project's folder, without a slash at its end. */
export const ROOT = fileURLToPath(new URL("../..", import.meta.url)).replace(/[\\/]$/, "");

const folders: string[] = [];
afterAll(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true }))));

/** A new folder with copies of files and with files of the given contents (text, or an object for JSON). */
export async function folderWith(
  copies: readonly string[],
  contents: Readonly<Record<string, string | Uint8Array | object>> = {},
): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "quire-tokenizer-"));
  folders.push(folder);
  for (const file of copies) await copyFile(file, join(folder, basename(file)));
  for (const [name, content] of Object.entries(contents)) {
    const raw = typeof content === "string" || content instanceof Uint8Array;
    await writeFile(join(folder, name), raw ? content : JSON.stringify(content));
  }
  return folder;
}
