// Download a GPT-2 from the Hugging Face hub, or from a mirror of it, so that it can be run from disk.
//
// The revision is resolved to a commit first and everything else is asked of that commit. Reading order:
// hub/endpoint, hub/listing, hub/choose-files, hub/fetch-file, hub/request.

import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { BadInput } from "./check.ts";
import { CheckpointError } from "./formats/checkpoint-error.ts";
import { openBytes } from "./formats/file-bytes.ts";
import { readShardIndex, type ShardIndex } from "./formats/shard-index.ts";
import {
  type Choice,
  checkConfigSize,
  checkIsGpt2,
  chooseFiles,
  chooseOnly,
  shardsOf,
} from "./hub/choose-files.ts";
import { diskError } from "./hub/disk-error.ts";
import { type HubOptions, openHub } from "./hub/endpoint.ts";
import { type Fetched, fetchFile, type Source } from "./hub/fetch-file.ts";
import { type HubFile, listTopFiles, resolveCommit } from "./hub/listing.ts";
import { checkRepo, checkRevision } from "./hub/names.ts";

export interface PullOptions extends HubOptions {
  /** "owner/name"; "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl" and "distilgpt2" may go without their owner. */
  readonly repo: string;
  /** Branch, tag or commit; default "main". */
  readonly revision?: string;
  /** The folder of models, default "weights"; the files go to <into>/<owner>/<name>. */
  readonly into?: string;
  /** Names of the files to take instead of the usual choice. */
  readonly only?: readonly string[];
  readonly onProgress?: (progress: PullProgress) => void;
}

/** Bytes in place, whether they were there or came over the network; they never go down. */
export interface PullProgress {
  readonly file: string;
  /** "present": it was there and is verified; "done": it has just been downloaded and is verified. */
  readonly state: "present" | "downloading" | "done";
  readonly fileDone: number;
  readonly fileTotal: number;
  /** Over all files of this pull. */
  readonly done: number;
  readonly total: number;
}

export interface PulledFile {
  readonly name: string;
  readonly bytes: number;
  /** Of files that the hub keeps in LFS; the others are verified by their git id. */
  readonly sha256?: string;
}

export interface PullResult {
  readonly repo: string;
  /** The commit that the revision stood for. */
  readonly commit: string;
  /** Where the files are. */
  readonly folder: string;
  readonly files: PulledFile[];
  /** Bytes of files that came over the network in this pull; 0 if everything was there. */
  readonly received: number;
}

/**
 * Bring configuration, tokenizer and weights of a GPT-2 into <into>/<owner>/<name>; what is there already and
 * right is not fetched again. Files appear under their names only when they are whole and verified; an
 * interrupted one stays as "<name>.part" and the next pull continues it.
 *
 * Throws BadInput with one line for what the user or the hub got wrong, for the network and for the disk;
 * the reason of `signal` when that is aborted.
 */
export async function pullModel(options: PullOptions): Promise<PullResult> {
  const repo = checkRepo(options.repo);
  const wanted = { repo, revision: checkRevision(options.revision ?? "main") };
  const hub = openHub(options);
  const commit = await resolveCommit(hub, wanted);
  const listing = await listTopFiles(hub, wanted, commit);
  const choice = options.only ? chooseOnly(listing, repo, options.only) : chooseFiles(listing, repo);

  const folder = join(options.into ?? "weights", ...repo.split("/"));
  await mkdir(folder, { recursive: true }).catch((error) => {
    throw diskError(error, folder);
  });

  const source = { hub, wanted, commit };
  const early = await fetchDecisive(source, choice, folder);
  const { index } = choice;
  const shards = index ? shardsOf(await readIndex(join(folder, index.name)), index.name, listing, repo) : [];
  const files = [...choice.files, ...shards];
  const received = await fetchAll(source, files, early, folder, options.onProgress);
  return { repo, commit, folder, files: files.map(describe), received };
}

/** The files that decide what else is fetched: config.json (is it a GPT-2?) and the index of shards. */
async function fetchDecisive(source: Source, choice: Choice, folder: string): Promise<Map<string, Fetched>> {
  const fetched = new Map<string, Fetched>();
  for (const file of choice.files) {
    if (file.name !== "config.json" && file !== choice.index) continue;
    const isConfig = file.name === "config.json";
    if (isConfig) checkConfigSize(file.bytes, source.wanted.repo);
    fetched.set(file.name, await fetchFile(source, file, folder, () => {}));
    if (isConfig) checkIsGpt2(await readFile(join(folder, file.name), "utf8"), source.wanted.repo);
  }
  return fetched;
}

/** Fetch what `early` does not hold, one file after the other, and report on all. Returns the bytes received. */
async function fetchAll(
  source: Source,
  files: readonly HubFile[],
  early: ReadonlyMap<string, Fetched>,
  folder: string,
  onProgress: PullOptions["onProgress"],
): Promise<number> {
  const total = files.reduce((sum, file) => sum + file.bytes, 0);
  let before = 0;
  let received = 0;
  for (const file of files) {
    let highest = 0;
    const report = (state: PullProgress["state"], fileDone: number) => {
      // A server that does not continue makes a file start over; the figures wait until it has caught up.
      highest = Math.max(highest, fileDone);
      onProgress?.({
        file: file.name,
        state,
        fileDone: highest,
        fileTotal: file.bytes,
        done: before + highest,
        total,
      });
    };
    const fetched =
      early.get(file.name) ?? (await fetchFile(source, file, folder, (done) => report("downloading", done)));
    report(fetched.present ? "present" : "done", file.bytes);
    received += fetched.received;
    before += file.bytes;
  }
  return received;
}

/** Throws BadInput for an index that cannot be used, and for one that names files elsewhere. */
async function readIndex(path: string): Promise<ShardIndex> {
  const bytes = await openBytes(path);
  try {
    return await readShardIndex(bytes);
  } catch (error) {
    if (error instanceof CheckpointError) throw new BadInput(error.message, { cause: error });
    throw error;
  } finally {
    await bytes.close();
  }
}

function describe(file: HubFile): PulledFile {
  const sha256 = file.digest?.algorithm === "sha256" ? { sha256: file.digest.hex } : {};
  return { name: file.name, bytes: file.bytes, ...sha256 };
}
