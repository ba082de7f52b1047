/** Leaves the results of an experiment in a folder, the figures first, so that no drawing can lose them. */
import { existsSync, readFileSync } from "node:fs";
import { access, constants, mkdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { BadInput } from "../check.ts";
import { makeFolder } from "../folders.ts";
import { PURPOSES } from "../gpu/memory.ts";
import { CACHE_MODES } from "../kv/cache.ts";
import { LIGHT } from "./chart-parts.ts";
import { chartSvg } from "./chart-svg.ts";
import { kvCharts } from "./charts.ts";
import type { Lang } from "./labels.ts";
import { reportHtml } from "./report.ts";
import { type BenchResults, RESULTS, sequencesOf, tokenRate } from "./results.ts";

/** What the file system may answer because of the folder that the user chose, in words. */
const REASONS: Record<string, string> = {
  EACCES: "permission denied",
  EPERM: "permission denied",
  EROFS: "the file system is read-only",
  ENOSPC: "no space left on the device",
  EDQUOT: "the disk quota is used up",
  ENOENT: "the file system does not let it be made",
  ENOTDIR: "a part of the path is not a folder",
  EEXIST: "it is a file, not a folder",
  EISDIR: "a folder is in the way of the file",
  ENAMETOOLONG: "the path is too long",
  ELOOP: "the path has a loop of links",
};

/** Charts that an earlier experiment may have left in the folder and that this one may not have. */
const ALL_CHARTS = [
  "modes",
  "normalised",
  "batch-kv",
  "raw-latency",
  "batch-rate",
  "raw-kv",
  ...CACHE_MODES.map((m) => `mode-${m}`),
];

/**
 * Makes the folder for results, so that a bad --out fails before the measuring and not after it.
 * @throws BadInput when it cannot be made or written to.
 */
export async function prepareResultsDir(dir: string): Promise<void> {
  await asBadInput(dir, async () => {
    makeFolder(dir);
    await access(dir, constants.W_OK | constants.X_OK);
  });
}

/** Where results go: an experiment that broke off does not overwrite one that was completed, but goes to a folder beside it. */
export function resultsFolder(out: string, isIncomplete: boolean): string {
  const earlier = join(out, "results.json");
  if (!isIncomplete || !existsSync(earlier)) return out;
  // Any reader of the file would look for the same words; a file that is no JSON is not worth keeping.
  return /"incomplete":/.test(readFileSync(earlier, "utf8")) ? out : `${out}-incomplete`;
}

/**
 * Makes the folder of a file for results, and sees that the file can be written.
 * @throws BadInput when it cannot.
 */
export async function prepareResultsFile(file: string): Promise<void> {
  await prepareResultsDir(dirname(file));
  const existing = await stat(file).catch(() => undefined);
  if (existing?.isDirectory()) throw new BadInput(`--out is "${file}"; that is a folder, wanted a file`);
  if (existing) await asBadInput(file, () => access(file, constants.W_OK));
}

/**
 * Writes results.json, steps.csv, charts/*.svg and report.html, in this order; see `writeFiles`.
 * @returns the paths of the files.
 */
export async function writeResults(dir: string, results: BenchResults, lang: Lang): Promise<string[]> {
  const parsed = RESULTS.safeParse(results);
  const charts = kvCharts(results, lang, LIGHT);
  const files: ResultFile[] = [
    ["results.json", () => `${JSON.stringify(parsed.data ?? results, null, 1)}\n`],
    ["steps.csv", () => stepsCsv(results)],
    ...ALL_CHARTS.map((id): ResultFile => {
      const chart = charts.find((c) => c.id === id);
      return [join("charts", `${id}.svg`), chart && (() => `${chartSvg(chart)}\n`)];
    }),
    ["report.html", () => reportHtml(results, lang)],
  ];
  return writeFiles(dir, files, parsed.error);
}

/** The name of a file within the folder, and how to make its content; without that an earlier file of the name goes. */
export type ResultFile = readonly [name: string, content: (() => string) | undefined];

/**
 * Makes and writes one file after the other. One that fails does not keep the others from being written; the first failure is
 * thrown at the end, `failure` before all others. Each file appears whole or not at all.
 * @returns the paths of the files.
 * @throws BadInput when the folder cannot be written to.
 */
export async function writeFiles(
  dir: string,
  files: readonly ResultFile[],
  failure?: unknown,
): Promise<string[]> {
  const failures: unknown[] = failure === undefined ? [] : [failure];
  const written: string[] = [];
  await prepareResultsDir(dir);
  for (const [name, content] of files) {
    const path = join(dir, name);
    try {
      if (content === undefined) await rm(path, { force: true });
      else {
        await writeResultsFile(path, content());
        written.push(path);
      }
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
  return written;
}

/** One line for each step of each repeat, with the unit in the name of each column; durations in seconds, memory in bytes. */
export function stepsCsv(results: BenchResults): string {
  const head = [
    "mode",
    "repeat",
    "step",
    "token_id",
    "context_length_tokens",
    "new_tokens_computed",
    "seconds",
    "gpu_memory_bytes",
    "gpu_peak_bytes",
    ...PURPOSES.map((p) => `${p}_bytes`),
    "kv_allocated_bytes",
    "kv_reserved_bytes",
    "kv_used_bytes",
    "sequences",
    "tokens_per_second",
  ];
  const rows = results.runs.flatMap((r) =>
    r.steps.map((s) => [
      r.mode,
      r.repeat,
      s.step,
      s.tokenId,
      s.contextLength,
      s.newTokensComputed,
      s.seconds,
      s.gpuMemoryBytes,
      s.gpuPeakBytes,
      ...PURPOSES.map((p) => s.memoryByPurpose[p]),
      s.kvAllocatedBytes,
      s.kvReservedBytes,
      s.kvUsedBytes,
      sequencesOf(s),
      tokenRate(s),
    ]),
  );
  return `${[head, ...rows].map((row) => row.join(",")).join("\n")}\n`;
}

/**
 * Writes beside the file first and renames, so that nobody reads half a file.
 * @throws BadInput when it cannot be written.
 */
export async function writeResultsFile(path: string, content: string): Promise<void> {
  const partial = `${path}.${process.pid}.part`;
  await asBadInput(path, async () => {
    await mkdir(dirname(path), { recursive: true });
    try {
      await writeFile(partial, content);
      await rename(partial, path);
    } catch (error) {
      await rm(partial, { force: true });
      throw error;
    }
  });
}

async function asBadInput(path: string, action: () => Promise<void>): Promise<void> {
  try {
    await action();
  } catch (error) {
    const reason = REASONS[(error as NodeJS.ErrnoException).code ?? ""];
    if (reason === undefined) throw error;
    throw new BadInput(`--out: cannot write ${path}: ${reason}; name a folder that you can write to`);
  }
}
