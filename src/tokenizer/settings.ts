import { z } from "zod";
import { checkFields } from "../formats/check-fields.ts";
import { ADDED_TOKEN, type AddedToken, TOKEN_ID } from "./definition.ts";
import { parseObject, readSource, type SourceText, TOKENIZER } from "./tokenizer-files.ts";

/** What stands beside the vocabulary: tokenizer_config.json, special_tokens_map.json, added_tokens.json. */
export interface TokenizerSettings {
  /** `tokenizer_class`, without "Fast". */
  readonly className: string | undefined;
  /** bos_token, eos_token, unk_token … to the token's text, as the files name them. */
  readonly specialTokens: ReadonlyMap<string, string>;
  /** Tokens besides those of the vocabulary's own file. */
  readonly addedTokens: readonly AddedToken[];
  /** Begin the text with a space; undefined leaves it to the tokenizer.json. */
  readonly addPrefixSpace: boolean | undefined;
  /** Undefined leaves the special tokens round a text to the tokenizer.json. */
  readonly addBos: boolean | undefined;
  readonly addEos: boolean | undefined;
  readonly cleanUpSpaces: boolean;
  readonly lowerCase: boolean;
  readonly tokenizeChineseChars: boolean;
  /** Null: accents go when letters are lowered. */
  readonly stripAccents: boolean | null;
}

const SPECIAL_NAMES = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
] as const;

/** Special tokens of transformers' GPT2Tokenizer when no file names others. */
export const GPT2_SPECIAL_TOKENS = {
  bos_token: "<|endoftext|>",
  eos_token: "<|endoftext|>",
  unk_token: "<|endoftext|>",
};
/** Special tokens of transformers' BertTokenizer when no file names others. */
export const BERT_SPECIAL_TOKENS = {
  unk_token: "[UNK]",
  sep_token: "[SEP]",
  pad_token: "[PAD]",
  cls_token: "[CLS]",
  mask_token: "[MASK]",
};

const FLAG = z.boolean({ error: "true or false" }).nullish();
const TOKEN = z.union([z.string(), ADDED_TOKEN], { error: "a token's text or object" }).nullish();
const SPECIAL_FIELDS = z.looseObject({
  ...(Object.fromEntries(SPECIAL_NAMES.map((name) => [name, TOKEN])) as Record<SpecialName, typeof TOKEN>),
  additional_special_tokens: z
    .array(z.union([z.string(), ADDED_TOKEN]), { error: "a list of tokens" })
    .nullish(),
});
const CONFIG_FIELDS = SPECIAL_FIELDS.extend({
  tokenizer_class: z.string({ error: "a string" }).nullish(),
  added_tokens_decoder: z
    .record(z.string().regex(/^\d{1,7}$/, { error: "a token id" }), ADDED_TOKEN, {
      error: "an object of ids and tokens",
    })
    .optional(),
  add_prefix_space: FLAG,
  add_bos_token: FLAG,
  add_eos_token: FLAG,
  clean_up_tokenization_spaces: FLAG,
  do_lower_case: FLAG,
  tokenize_chinese_chars: FLAG,
  strip_accents: FLAG,
});
const ADDED_FIELDS = z.record(z.string(), TOKEN_ID, { error: "an object of tokens and ids" });

type SpecialName = (typeof SPECIAL_NAMES)[number];
type SpecialFields = z.infer<typeof SPECIAL_FIELDS>;

/** Read what of the three files is in a folder; `names` are the folder's files. Throws CheckpointError TOKENIZER. */
export async function readSettings(
  folder: string,
  names: ReadonlySet<string>,
  defaults: Readonly<Partial<Record<SpecialName, string>>>,
): Promise<TokenizerSettings> {
  const read = async (name: string): Promise<SourceText> =>
    names.has(name) ? await readSource(folder, name) : { file: name, text: "{}" };
  const load = async <T>(name: string, schema: z.ZodType<T>): Promise<T> => {
    const source = await read(name);
    return checkFields(schema, parseObject(source), TOKENIZER, source.file);
  };
  const config = await load("tokenizer_config.json", CONFIG_FIELDS);
  // The two older files count only for a folder whose tokenizer_config.json does not list the added tokens.
  const listed = config.added_tokens_decoder !== undefined;
  const special: SpecialFields = listed ? {} : await load("special_tokens_map.json", SPECIAL_FIELDS);
  const older = listed ? {} : await load("added_tokens.json", ADDED_FIELDS);

  const className = config.tokenizer_class?.replace(/Fast$/, "");
  const known = className === undefined || className === "GPT2Tokenizer" || className === "BertTokenizer";
  const specialTokens = new Map<string, string>(known ? Object.entries(defaults) : []);
  for (const name of SPECIAL_NAMES) {
    const token = special[name] ?? config[name];
    if (token) specialTokens.set(name, contentOf(token));
  }
  for (const [index, token] of additional(special, config).entries()) {
    specialTokens.set(`additional_special_tokens.${index}`, contentOf(token));
  }
  const addedTokens: AddedToken[] = Object.entries(config.added_tokens_decoder ?? {}).map(([id, token]) => ({
    ...token,
    id: Number(id),
  }));
  for (const [content, id] of Object.entries(older)) addedTokens.push({ content, id, normalized: true });
  return {
    className,
    specialTokens,
    addedTokens,
    // GPT2Tokenizer's own default stands above the tokenizer.json, as it does in transformers.
    addPrefixSpace: config.add_prefix_space ?? (known ? false : undefined),
    addBos: config.add_bos_token ?? undefined,
    addEos: config.add_eos_token ?? undefined,
    cleanUpSpaces: config.clean_up_tokenization_spaces ?? false,
    lowerCase: config.do_lower_case ?? true,
    tokenizeChineseChars: config.tokenize_chinese_chars ?? true,
    stripAccents: config.strip_accents ?? null,
  };
}

function additional(special: SpecialFields, config: SpecialFields) {
  return special.additional_special_tokens ?? config.additional_special_tokens ?? [];
}

function contentOf(token: string | { content: string }): string {
  return typeof token === "string" ? token : token.content;
}
