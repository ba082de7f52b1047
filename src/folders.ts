import { existsSync, mkdirSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import process from "node:process";

/** Quire's folder for what outlives the process and can be made anew: under QUIRE_CACHE, XDG_CACHE_HOME or ~/.cache. */
export function userCacheFolder(): string {
  const base = process.env.QUIRE_CACHE || process.env.XDG_CACHE_HOME || join(homedir(), ".cache");
  return join(base, "quire");
}

/**
 * Make a folder and those above it, level by level: Node's own recursive mkdir never returns where a file system refuses
 * with ENOENT (/proc). Throws the file system's error; EEXIST when a file is in the way.
 */
export function makeFolder(path: string): void {
  const folder = resolve(path);
  if (existsSync(folder)) {
    if (!statSync(folder).isDirectory())
      throw Object.assign(new Error(`${folder} is a file`), { code: "EEXIST" });
    return;
  }
  makeFolder(dirname(folder));
  try {
    mkdirSync(folder);
  } catch (error) {
    // Another process may have been faster.
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
}
