import { z } from "zod";
import { checkFields, show } from "../formats/check-fields.ts";
import { CheckpointError } from "../formats/checkpoint-error.ts";
import { quote } from "../formats/quote.ts";
import { type Component, DECODER, NORMALIZER, POST_PROCESSOR, PRE_TOKENIZER } from "./components.ts";
import {
  checkVocabulary,
  MAX_TOKEN_ID,
  parseObject,
  requireCount,
  type SourceText,
  TOKENIZER,
  type Vocabulary,
} from "./tokenizer-files.ts";

/** A token that is cut out of the text before everything else. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special?: boolean;
  readonly lstrip?: boolean;
  readonly rstrip?: boolean;
  readonly normalized?: boolean;
}

export type ModelType = "BPE" | "WordPiece" | "Unigram";

/** The content of a tokenizer.json, read from one or built from older files, and checked. */
export interface Definition {
  /** The file it comes from, for messages. */
  readonly file: string;
  readonly added_tokens: readonly AddedToken[];
  readonly normalizer: Component | null;
  readonly pre_tokenizer: Component | null;
  readonly post_processor: Component | null;
  readonly decoder: Component | null;
  readonly model: Component & { readonly type: ModelType };
}

/** XLM-R's 250,000 tokens have 1.7 million characters. */
const MAX_TRIE = 3_000_000;
/** WordPiece looks up every part of a word, so that its time grows with the square of this. */
const MAX_WORD = 1000;
const TEXT = z.string({ error: "a string or null" }).nullish();
const FLAG = z.boolean({ error: "true or false" }).optional();

/** Fields of an added token as tokenizer.json and tokenizer_config.json write it. */
export const ADDED_TOKEN = z.looseObject(
  {
    content: z.string({ error: "a string" }).min(1, { error: "a string of at least one character" }),
    special: FLAG,
    lstrip: FLAG,
    rstrip: FLAG,
    normalized: FLAG,
    // The library would match the token inside words.
    single_word: z.literal(false, { error: "false: whole-word tokens are not supported" }).optional(),
  },
  { error: "a token object with its content" },
);
/** A token's id in added_tokens and its like. */
export const TOKEN_ID = z
  .int({ error: "an integer" })
  .min(0, { error: "an integer from 0" })
  .max(MAX_TOKEN_ID, { error: `at most ${MAX_TOKEN_ID}` });

/** Not z.record, which drops a token called __proto__. */
const VOCABULARY = z.custom<Record<string, unknown>>(
  (value) => typeof value === "object" && value !== null && !Array.isArray(value),
);

const FIELDS = z.looseObject({
  added_tokens: z
    .array(ADDED_TOKEN.extend({ id: TOKEN_ID }), { error: "an array" })
    .nullish()
    .transform((tokens) => tokens ?? []),
  normalizer: NORMALIZER,
  pre_tokenizer: PRE_TOKENIZER,
  post_processor: POST_PROCESSOR,
  decoder: DECODER,
  model: z.looseObject(
    {
      type: z.enum(["BPE", "WordPiece", "Unigram"], { error: "BPE, WordPiece or Unigram" }).optional(),
      vocab: z.union([VOCABULARY, z.array(z.tuple([z.string(), z.number()])).min(1)], {
        error: "an object of tokens and ids",
      }),
      merges: z
        .array(z.union([z.string(), z.tuple([z.string(), z.string()]).readonly()]), {
          error: "a list of pairs",
        })
        .optional(),
      dropout: z.literal([null, 0], { error: "null: dropped merges would make ids random" }).optional(),
      continuing_subword_prefix: TEXT,
      end_of_word_suffix: TEXT,
      unk_token: TEXT,
      unk_id: TOKEN_ID.nullish(),
      fuse_unk: FLAG,
      byte_fallback: FLAG,
      ignore_merges: FLAG,
      max_input_chars_per_word: z
        .int({ error: "an integer" })
        .min(1, { error: "an integer from 1" })
        .max(MAX_WORD, { error: `at most ${MAX_WORD}` })
        .optional(),
    },
    { error: "an object" },
  ),
});

/** Read a tokenizer.json. Throws CheckpointError TOKENIZER. */
export function parseDefinition(source: SourceText): Definition {
  const { file } = source;
  const parsed = parseObject(source);
  requireCounts(file, parsed);
  const fields = checkFields(FIELDS, parsed, TOKENIZER, file);
  const { model, added_tokens, normalizer, pre_tokenizer, post_processor, decoder } = fields;
  // Files from before tokenizers 0.8 do not name the type.
  const type = model.type ?? (model.merges ? "BPE" : Array.isArray(model.vocab) ? "Unigram" : "WordPiece");
  const parts = { file, added_tokens, normalizer, pre_tokenizer, post_processor, decoder };
  if (Array.isArray(model.vocab) !== (type === "Unigram")) {
    const what = `model.vocab: got the vocabulary of another type than ${type}`;
    throw new CheckpointError(TOKENIZER, file, what);
  }
  requireSmallTrie(
    file,
    "added_tokens",
    added_tokens.map(({ content }) => content),
  );
  if (Array.isArray(model.vocab)) {
    const unknown = model.unk_id ?? 0;
    if (unknown >= model.vocab.length) {
      const what = `model.unk_id: got ${unknown}, expected the place of a token in the vocabulary`;
      throw new CheckpointError(TOKENIZER, file, what);
    }
    requireSmallTrie(
      file,
      "model.vocab",
      model.vocab.map(([token]) => token),
    );
    return { ...parts, model: { ...model, type } };
  }
  checkVocabulary(model.vocab, source);
  if (type === "WordPiece") {
    const defaults = { unk_token: "[UNK]", continuing_subword_prefix: "##" };
    return { ...parts, model: { ...defaults, ...model, type } };
  }
  if (model.continuing_subword_prefix) {
    const what = `model.continuing_subword_prefix: got ${quote(model.continuing_subword_prefix)}, expected none in BPE`;
    throw new CheckpointError(TOKENIZER, file, what);
  }
  const vocabulary: Vocabulary = model.vocab;
  const merges = (model.merges ?? []).map((merge, index) => {
    const pair = typeof merge === "string" ? merge.split(" ") : merge;
    const fault = mergeFault(pair, vocabulary);
    if (fault === undefined) return pair;
    throw new CheckpointError(TOKENIZER, file, `model.merges.${index}: got ${show(merge)}, ${fault}`);
  });
  return { ...parts, model: { ...model, type, merges } };
}

/** Throw for lists too long to be looked through. */
function requireCounts(file: string, parsed: Record<string, unknown>): void {
  const { added_tokens, model } = parsed;
  const { vocab, merges } = (model ?? {}) as { vocab?: unknown; merges?: unknown };
  for (const [name, list] of Object.entries({ added_tokens, "model.vocab": vocab, "model.merges": merges })) {
    if (Array.isArray(list)) requireCount(file, name, list.length);
  }
}

/** The library keeps these tokens in a tree with an object for each character. */
function requireSmallTrie(file: string, what: string, tokens: readonly string[]): void {
  const characters = tokens.reduce((sum, token) => sum + token.length, 0);
  if (characters <= MAX_TRIE) return;
  const got = `${characters} characters in all`;
  throw new CheckpointError(TOKENIZER, file, `${what}: got ${got}, expected at most ${MAX_TRIE}`);
}

/** Why a merge cannot be one, to follow "got …"; undefined when both tokens and what they make are in the vocabulary. */
export function mergeFault(pair: readonly string[], vocabulary: Vocabulary): string | undefined {
  if (pair.length !== 2 || pair.includes("")) return "expected two tokens with a space between";
  const missing = [...pair, pair.join("")].find((token) => !Object.hasOwn(vocabulary, token));
  return missing === undefined ? undefined : `but ${quote(missing)} is not in the vocabulary`;
}

/** Token to id of a definition's model; a Unigram's ids are its positions. */
export function vocabularyOf(definition: Definition): ReadonlyMap<string, number> {
  const { vocab } = definition.model as { vocab?: unknown };
  if (Array.isArray(vocab)) return new Map(vocab.map(([token], id) => [token as string, id]));
  return new Map(Object.entries(vocab as Record<string, number>));
}
