import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** Folder of Quire itself: the one with package.json, shaders and weights. */
export const PROJECT_FOLDER = dirname(dirname(fileURLToPath(import.meta.url)));

/**
 * Path of a file inside an installed npm package, found as Node finds packages: node_modules here or in a parent folder.
 * Undefined where the package or the file is not installed.
 */
export function packageFile(name: string, file: string): string | undefined {
  for (let folder = PROJECT_FOLDER; ; folder = dirname(folder)) {
    const path = join(folder, "node_modules", name, file);
    if (existsSync(path)) return path;
    if (folder === dirname(folder)) return undefined;
  }
}

/** Version of an installed npm package, or undefined. */
export function packageVersion(name: string): string | undefined {
  const path = packageFile(name, "package.json");
  return path && (JSON.parse(readFileSync(path, "utf8")) as { version?: string }).version;
}

/** Quire's own version. */
export function quireVersion(): string {
  return (JSON.parse(readFileSync(join(PROJECT_FOLDER, "package.json"), "utf8")) as { version: string })
    .version;
}
