// Which of a repository's files make a GPT-2: configuration, tokenizer, and the weights in one format.

import { BadInput } from "../check.ts";
import { quote } from "../formats/quote.ts";
import type { HubFile } from "./listing.ts";
import { checkFilePath } from "./names.ts";

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

/** The shards that an index file names, in order, each once. Throws BadInput for an index that is none. */
export function shardsOf(
  index: string,
  indexName: string,
  listing: ReadonlyMap<string, HubFile>,
  repo: string,
): HubFile[] {
  const names = new Set(Object.values(weightMap(index, `${repo}/${indexName}`)));
  return [...names].sort().map((name) => {
    checkFilePath(name, `${repo}/${indexName}`);
    return listing.get(name) ?? missing(listing, repo, name, `is named by ${indexName}`);
  });
}

function weightMap(index: string, source: string): Record<string, string> {
  const parsed = parseJson(index, source);
  const map = isObject(parsed) ? parsed.weight_map : undefined;
  const isMap = isObject(map) && Object.values(map).every((name) => typeof name === "string");
  if (!isMap || Object.keys(map).length === 0) {
    throw new BadInput(`${source} has no weight_map from tensor names to file names`);
  }
  return map as Record<string, string>;
}

/** Throw BadInput if a config.json says that the model is something else than a GPT-2, before gigabytes are fetched. */
export function checkIsGpt2(config: string, repo: string): void {
  const parsed = parseJson(config, `${repo}/config.json`);
  const type = isObject(parsed) ? parsed.model_type : undefined;
  if (typeof type === "string" && type !== "gpt2") {
    throw new BadInput(
      `${repo} is a model of type ${quote(type)}; Quire runs gpt2 only, such as openai-community/gpt2`,
    );
  }
}

function parseJson(text: string, source: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new BadInput(`${source} is not JSON`, { cause: error });
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
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
