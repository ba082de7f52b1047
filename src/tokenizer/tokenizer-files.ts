import { join } from "node:path";
import { show } from "../formats/check-fields.ts";
import { CheckpointError } from "../formats/checkpoint-error.ts";
import { openBytes } from "../formats/file-bytes.ts";
import { type JsonLimits, JsonReader } from "../formats/json-reader.ts";
import { quote } from "../formats/quote.ts";
import { firstInvalidUtf8 } from "../formats/utf8.ts";

/** Code of every error about a tokenizer's files. */
export const TOKENIZER = "TOKENIZER";
/** The largest tokenizer.json of a model in use (256,000 tokens) has 35 MB. */
const MAX_FILE_BYTES = 64 * 1024 * 1024;
/** Bounds the arrays that are indexed by id; the largest vocabulary in use has 262,144 tokens. */
export const MAX_TOKEN_ID = 4_194_303;
/** Tokens of a vocabulary, and as many merges. */
export const MAX_TOKENS = 1_000_000;
/** Sequences of parts nest 6 deep in files in use. A million tokens and as many merges of three values fit. */
const JSON_LIMITS: JsonLimits = { depth: 64, keys: 1_100_000, values: 4_500_000 };

const JSON_CODES = {
  utf8: TOKENIZER,
  json: TOKENIZER,
  depth: TOKENIZER,
  duplicate: TOKENIZER,
  limit: TOKENIZER,
};

/** Token to id, as `vocab.json` and the `model` of a tokenizer.json hold it. */
export type Vocabulary = Readonly<Record<string, number>>;

/** A file's text with the name that error messages give it. */
export interface SourceText {
  readonly file: string;
  readonly text: string;
}

/** Text of a UTF-8 file of at most 64 MiB, without its byte order mark. Throws CheckpointError. */
export async function readSource(folder: string, name: string): Promise<SourceText> {
  const file = join(folder, name);
  const handle = await openBytes(file);
  try {
    if (handle.size > MAX_FILE_BYTES) {
      const what = `got a file of ${handle.size} bytes, expected at most ${MAX_FILE_BYTES}`;
      throw new CheckpointError(TOKENIZER, file, what);
    }
    const bytes = await handle.read(0, handle.size);
    const bad = firstInvalidUtf8(bytes);
    if (bad >= 0) throw new CheckpointError(TOKENIZER, file, `got bytes that are not UTF-8 at byte ${bad}`);
    return { file, text: new TextDecoder().decode(bytes) };
  } finally {
    await handle.close();
  }
}

/**
 * The object that a JSON file holds, at most 64 levels deep and without two equal keys.
 * Throws CheckpointError with the line of a mistake.
 */
export function parseObject({ file, text }: SourceText): Record<string, unknown> {
  requireJson(file, text);
  const value: unknown = JSON.parse(text);
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  const got = Array.isArray(value) ? "an array" : value === null ? "null" : `a ${typeof value}`;
  throw new CheckpointError(TOKENIZER, file, `got ${got}, expected a JSON object`);
}

/** Refuse ids that are no ids and two tokens with one id. `text` is searched for the line of a double. */
export function checkVocabulary(
  vocabulary: Record<string, unknown>,
  { file, text }: SourceText,
): asserts vocabulary is Record<string, number> {
  const tokenOfId = new Map<number, string>();
  const entries = Object.entries(vocabulary);
  requireCount(file, "tokens", entries.length);
  for (const [token, id] of entries) {
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) > MAX_TOKEN_ID) {
      const what = `token ${quote(token)}: got id ${show(id)}, expected an integer from 0 to ${MAX_TOKEN_ID}`;
      throw new CheckpointError(TOKENIZER, file, what);
    }
    const twin = tokenOfId.get(id as number);
    if (twin !== undefined) {
      const line = secondUse(text, id as number);
      const what = `line ${line}: got id ${id} for ${quote(twin)} and for ${quote(token)}, expected one token for each id`;
      throw new CheckpointError(TOKENIZER, file, what);
    }
    tokenOfId.set(id as number, token);
  }
  if (tokenOfId.size === 0) throw new CheckpointError(TOKENIZER, file, "got an empty vocabulary");
}

/** Lines of a text; also the line, from 1, that its end is in. */
export function lineCount(text: string): number {
  let count = 1;
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) count++;
  return count;
}

/** Walk the text before JSON.parse, whose result would be all there is to check by then. */
function requireJson(file: string, text: string): void {
  const bytes = new TextEncoder().encode(text);
  try {
    const json = new JsonReader({ file, what: "file", codes: JSON_CODES, limits: JSON_LIMITS }, bytes);
    json.skip();
    json.end();
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    const detail = error.message.slice(`${TOKENIZER}: ${file}: `.length);
    const position = / at byte (\d+)(?::|$)/.exec(detail)?.[1];
    if (position === undefined) throw error;
    const before = new TextDecoder().decode(bytes.subarray(0, Number(position)));
    throw new CheckpointError(TOKENIZER, file, `line ${lineCount(before)}: ${detail}`);
  }
}

/** Throw when there are more of them than a tokenizer may have; before anything is made of them. */
export function requireCount(file: string, what: string, count: number): void {
  if (count <= MAX_TOKENS) return;
  throw new CheckpointError(TOKENIZER, file, `${what}: got ${count}, expected at most ${MAX_TOKENS}`);
}

/** Line where an id stands as a value for the second time. */
function secondUse(text: string, id: number): number {
  const uses = text.matchAll(new RegExp(`:\\s*${id}(?=\\s*[,}])`, "g"));
  const positions = Array.from(uses, (use) => use.index);
  return lineCount(text.slice(0, positions[1] ?? positions[0] ?? 0));
}
