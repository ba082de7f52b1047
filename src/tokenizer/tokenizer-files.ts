import { join } from "node:path";
import { CheckpointError } from "../formats/checkpoint-error.ts";
import { openBytes } from "../formats/file-bytes.ts";
import { JsonReader } from "../formats/json-reader.ts";
import { quote } from "../formats/quote.ts";
import { firstInvalidUtf8 } from "../formats/utf8.ts";

/** Code of every error about a tokenizer's files. */
export const TOKENIZER = "TOKENIZER";
/** The largest tokenizer.json of a model in use (256,000 tokens) has 35 MB. */
const MAX_FILE_BYTES = 100_000_000;
/** Bounds the arrays that are indexed by id; the largest vocabulary in use has 262,144 tokens. */
const MAX_TOKEN_ID = 4_194_303;

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

/** Text of a UTF-8 file of at most 100 MB, without its byte order mark. Throws CheckpointError. */
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

/** The object that a JSON file holds. Throws CheckpointError with the line of a mistake. */
export function parseObject({ file, text }: SourceText): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new CheckpointError(TOKENIZER, file, jsonFault(file, text, (error as Error).message));
  }
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
  for (const [token, id] of Object.entries(vocabulary)) {
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) > MAX_TOKEN_ID) {
      const what = `token ${quote(token)}: got id ${JSON.stringify(id)}, expected an integer from 0 to ${MAX_TOKEN_ID}`;
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

/** Line, from 1, of a position in a text. */
function lineOf(text: string, position: number): number {
  let line = 1;
  for (let at = text.indexOf("\n"); at >= 0 && at < position; at = text.indexOf("\n", at + 1)) line++;
  return line;
}

/** Where a text stops being JSON. JSON.parse says it in other words in each runtime, and not always. */
function jsonFault(file: string, text: string, fallback: string): string {
  const bytes = new TextEncoder().encode(text);
  const json = new JsonReader({ file, what: "file", codes: JSON_CODES }, bytes);
  try {
    json.skip();
    json.end();
  } catch (error) {
    const { message } = error as CheckpointError;
    const position = Number(/ at byte (\d+)/.exec(message)?.[1] ?? 0);
    const before = new TextDecoder().decode(bytes.subarray(0, position));
    return `line ${lineOf(before, before.length)}: ${message.slice(`${TOKENIZER}: ${file}: `.length)}`;
  }
  return `file is not JSON: ${fallback}`;
}

/** Line where an id stands as a value for the second time. */
function secondUse(text: string, id: number): number {
  const uses = text.matchAll(new RegExp(`:\\s*${id}(?=\\s*[,}])`, "g"));
  const positions = Array.from(uses, (use) => use.index);
  return lineOf(text, positions[1] ?? positions[0] ?? 0);
}
