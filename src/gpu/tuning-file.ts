import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { BadInput } from "../check.ts";
import { makeFolder, userCacheFolder } from "../folders.ts";
import type { AdapterInfo } from "./adapter.ts";
import { parseTuning, type Tuning, type TuningFor, tuningText } from "./tuning.ts";
import { readShader } from "./wgsl.ts";

// Where measured tile sizes are kept: one file an adapter and driver, under the user's cache.

const SHADERS = new URL("../../shaders/", import.meta.url);

/** Tens of kilobytes are usual. */
const MOST_BYTES = 4 << 20;

/** A family of tiles, by the names of its shaders. */
export interface TileShaders {
  /** Names of the tiles' parts begin so; what follows is a size. */
  readonly tiles: readonly string[];
  /** So begin the names of all shaders that its times depend on: a table is stale when one of them changes. */
  readonly shaders: readonly string[];
}

/** Names of the shaders that begin with one of these words, sorted. */
export function shadersNamed(beginnings: readonly string[]): string[] {
  return readdirSync(SHADERS)
    .filter((file) => file.endsWith(".wgsl") && beginnings.some((b) => file.startsWith(b)))
    .map((file) => file.slice(0, -".wgsl".length))
    .sort();
}

/** What a table for this adapter and these families must fit. */
export function tuningFor(
  { description, driver }: Pick<AdapterInfo, "description" | "driver">,
  families: Readonly<Record<string, TileShaders>>,
): TuningFor {
  return {
    adapter: description,
    driver: driver ?? null,
    families: Object.fromEntries(
      Object.entries(families).map(([name, { tiles, shaders }]) => [
        name,
        {
          tiles: shadersNamed(tiles),
          kernels: hashOf(...shadersNamed([...tiles, ...shaders]).map(readShader)),
        },
      ]),
    ),
  };
}

/** The file of an adapter and driver. */
export function tuningPath({ description, driver }: Pick<AdapterInfo, "description" | "driver">): string {
  return join(userCacheFolder(), "tuning", `${hashOf(description, driver ?? "")}.json`);
}

/**
 * What was measured before on this adapter, for these families as they are now; undefined when there is nothing that fits.
 * What is ignored is told by `warn` in one line: a damaged file, one of another adapter, tables of other shaders.
 */
export function readTuning(
  info: Pick<AdapterInfo, "description" | "driver">,
  families: Readonly<Record<string, TileShaders>>,
  warn: (line: string) => void,
): Tuning | undefined {
  const path = tuningPath(info);
  if (!existsSync(path)) return undefined;
  let text: string;
  try {
    const { size } = statSync(path);
    if (size > MOST_BYTES) throw new Error(`it has ${size} bytes`);
    text = readFileSync(path, "utf8");
  } catch (error) {
    warn(`tuning ignored: ${path}: ${(error as Error).message}`);
    return undefined;
  }
  const { tuning, ignored } = parseTuning(text, tuningFor(info, families));
  if (ignored.length > 0)
    warn(`tuning ignored: ${path}: ${ignored.join("; ")}; run "quire bench shaders --tune" again`);
  return Object.keys(tuning).length > 0 ? tuning : undefined;
}

/**
 * Keep a tuning for this adapter; the file appears whole or not at all. Families that `tuning` lacks keep what they had.
 * @returns its path.
 * @throws BadInput when the cache cannot be written to.
 */
export function writeTuning(
  tuning: Tuning,
  info: Pick<AdapterInfo, "description" | "driver">,
  families: Readonly<Record<string, TileShaders>>,
): string {
  const path = tuningPath(info);
  const all = { ...readTuning(info, families, () => {}), ...tuning };
  try {
    makeFolder(dirname(path));
    writeWhole(path, tuningText(all, tuningFor(info, families), new Date()));
  } catch (error) {
    throw new BadInput(
      `cannot write ${path}: ${(error as Error).message}; set QUIRE_CACHE to a folder that you can write to`,
    );
  }
  return path;
}

/** Beside the file first, so that nobody reads half of it. */
function writeWhole(path: string, text: string): void {
  const partial = `${path}.${process.pid}.part`;
  try {
    writeFileSync(partial, text);
    renameSync(partial, path);
  } catch (error) {
    rmSync(partial, { force: true });
    throw error;
  }
}

/** Sixteen digits that change with any of the texts. */
function hashOf(...texts: readonly string[]): string {
  return createHash("sha256").update(JSON.stringify(texts)).digest("hex").slice(0, 16);
}
