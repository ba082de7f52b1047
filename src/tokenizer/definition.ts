import { z } from "zod";
import { checkFields, show } from "../formats/check-fields.ts";
import { CheckpointError } from "../formats/checkpoint-error.ts";
import { quote } from "../formats/quote.ts";
import {
  checkVocabulary,
  parseObject,
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

interface Component {
  readonly type: string;
  readonly [field: string]: unknown;
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

const COMPONENT = z
  .looseObject({ type: z.string({ error: "a string" }) }, { error: "an object or null" })
  .nullish()
  .transform((component) => component ?? null);
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
export const TOKEN_ID = z.int({ error: "an integer" }).min(0, { error: "an integer from 0" });

/** Not z.record, which drops a token called __proto__. */
const VOCABULARY = z.custom<Record<string, unknown>>(
  (value) => typeof value === "object" && value !== null && !Array.isArray(value),
);

const FIELDS = z.looseObject({
  added_tokens: z
    .array(ADDED_TOKEN.extend({ id: TOKEN_ID }), { error: "an array" })
    .nullish()
    .transform((tokens) => tokens ?? []),
  normalizer: COMPONENT,
  pre_tokenizer: COMPONENT,
  post_processor: COMPONENT,
  decoder: COMPONENT,
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
      continuing_subword_prefix: z.string({ error: "a string or null" }).nullish(),
    },
    { error: "an object" },
  ),
});

/** Read a tokenizer.json. Throws CheckpointError TOKENIZER. */
export function parseDefinition(source: SourceText): Definition {
  const { file } = source;
  const fields = checkFields(FIELDS, parseObject(source), TOKENIZER, file);
  const { model, added_tokens, normalizer, pre_tokenizer, post_processor, decoder } = fields;
  // Files from before tokenizers 0.8 do not name the type.
  const type = model.type ?? (model.merges ? "BPE" : Array.isArray(model.vocab) ? "Unigram" : "WordPiece");
  const parts = { file, added_tokens, normalizer, pre_tokenizer, post_processor, decoder };
  if (Array.isArray(model.vocab) !== (type === "Unigram")) {
    const what = `model.vocab: got the vocabulary of another type than ${type}`;
    throw new CheckpointError(TOKENIZER, file, what);
  }
  if (Array.isArray(model.vocab)) return { ...parts, model: { ...model, type } };
  checkVocabulary(model.vocab, source);
  if (type === "WordPiece") {
    const defaults = { unk_token: "[UNK]", continuing_subword_prefix: "##" };
    return { ...parts, model: { ...defaults, ...model, type } };
  }
  if (model.continuing_subword_prefix) {
    const what = `model.continuing_subword_prefix: got "${model.continuing_subword_prefix}", expected none in BPE`;
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
