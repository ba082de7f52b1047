// Which of a repository's files make a GPT-2: configuration, tokenizer, and the weights in one format.

import { BadInput } from "../check.ts";
import { quote } from "../formats/quote.ts";
import type { ShardIndex } from "../formats/shard-index.ts";
import { MAX_CONFIG_BYTES } from "../model/config.ts";
import type { HubFile } from "./listing.ts";

const SMALL_FILES = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "vocab.json",
  "merges.txt",
  "vocab.txt",
];

/** Best first: safetensors hold no code and can be read in place; a single file needs no index. */
const WEIGHTS = [
  "model.safetensors",
  "model.safetensors.index.json",
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
];

/** What to download; where `index` is given, the shards it names come on top (shardsOf). */
export interface Choice {
  readonly files: readonly HubFile[];
  readonly index: HubFile | undefined;
}

/** Choose from a listing. Throws BadInput if there is no config.json or no weights that Quire reads. */
export function chooseFiles(listing: ReadonlyMap<string, HubFile>, repo: string): Choice {
  if (!listing.has("config.json"))
    throw new BadInput(`${repo} has no config.json, so it is no model that Quire can run`);
  const weights = WEIGHTS.find((name) => listing.has(name));
  if (weights === undefined) {
    throw new BadInput(
      `${repo} has none of ${WEIGHTS.join(", ")}; its files are: ${shorten([...listing.keys()])}`,
    );
  }
  const chosen = [...SMALL_FILES, weights].flatMap((name) => listing.get(name) ?? []);
  return { files: chosen, index: weights.endsWith(".index.json") ? listing.get(weights) : undefined };
}

/** Exactly the files named. Throws BadInput for one that the listing does not have. */
export function chooseOnly(
  listing: ReadonlyMap<string, HubFile>,
  repo: string,
  only: readonly string[],
): Choice {
  const files = only.map((name) => listing.get(name) ?? missing(listing, repo, name, "was asked for"));
  return { files, index: undefined };
}

/** The shards that a read index names, each once. Throws BadInput for one that the listing does not have. */
export function shardsOf(
  index: ShardIndex,
  indexName: string,
  listing: ReadonlyMap<string, HubFile>,
  repo: string,
): HubFile[] {
  const names = [...new Set(index.weightMap.values())].sort();
  return names.map((name) => listing.get(name) ?? missing(listing, repo, name, `is named by ${indexName}`));
}

/** Throw BadInput for a config.json that loading would refuse by its size. */
export function checkConfigSize(bytes: number, repo: string): void {
  if (bytes <= MAX_CONFIG_BYTES) return;
  throw new BadInput(`${repo}/config.json has ${bytes} bytes; expected at most ${MAX_CONFIG_BYTES}`);
}

/** Throw BadInput if a config.json says that the model is something else than a GPT-2, before gigabytes are fetched. */
export function checkIsGpt2(config: string, repo: string): void {
  const type = modelType(config, `${repo}/config.json`);
  if (typeof type === "string" && type !== "gpt2") {
    throw new BadInput(
      `${repo} is a model of type ${quote(type)}; Quire runs gpt2 only, such as openai-community/gpt2`,
    );
  }
}

function modelType(config: string, source: string): unknown {
  try {
    const parsed: unknown = JSON.parse(config);
    return typeof parsed === "object" && parsed !== null && "model_type" in parsed
      ? parsed.model_type
      : undefined;
  } catch (error) {
    throw new BadInput(`${source} is not JSON`, { cause: error });
  }
}

function missing(listing: ReadonlyMap<string, HubFile>, repo: string, name: string, why: string): never {
  throw new BadInput(
    `${repo} has no file ${quote(name)}, which ${why}; its files are: ${shorten([...listing.keys()])}`,
  );
}

/** The first names of a list, for one line. */
function shorten(names: readonly string[]): string {
  const shown = names.slice(0, 12).map(quote).join(", ");
  return names.length > 12 ? `${shown} and ${names.length - 12} more` : shown || "none";
}
