import { join } from "node:path";
import { BadInput } from "./check.ts";
import { CheckpointError } from "./formats/checkpoint-error.ts";
import { listFolder } from "./formats/file-bytes.ts";
import { oneLine, quote } from "./formats/quote.ts";
import { type AddedToken, type Definition, parseDefinition, vocabularyOf } from "./tokenizer/definition.ts";
import { type LibraryTokenizer, openLibrary } from "./tokenizer/library.ts";
import {
  BERT_SPECIAL_TOKENS,
  GPT2_SPECIAL_TOKENS,
  readSettings,
  type TokenizerSettings,
} from "./tokenizer/settings.ts";
import { byteLevelText, type TokenText, wholeText, wordPieceText } from "./tokenizer/token-text.ts";
import { readSource, TOKENIZER } from "./tokenizer/tokenizer-files.ts";
import { fromMerges, fromWordList } from "./tokenizer/vocabulary-files.ts";

export interface EncodeOptions {
  /** Add what the tokenizer puts round a text: nothing for GPT-2, [CLS] and [SEP] for BERT. Default true. */
  readonly addSpecialTokens?: boolean;
}

export interface DecodeOptions {
  /** Leave out special tokens, such as `<|endoftext|>`. Default false. */
  readonly skipSpecialTokens?: boolean;
}

/** Text to token ids and back, equal to Hugging Face's tokenizers for the same files. */
export interface Tokenizer {
  /** One more than the largest id; a model's own vocabulary may have more rows. */
  readonly vocabSize: number;
  /** Ids of the tokens that the files, or GPT-2's defaults, name; undefined when there are none (BERT). */
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  /** Ids of a text of any length; half of a surrogate pair counts as U+FFFD. */
  encode(text: string, options?: EncodeOptions): number[];
  /** Text of ids; an id without a token has none. */
  decode(ids: readonly number[], options?: DecodeOptions): string;
  /** The token as the vocabulary writes it (`Ġthe`, `##s`); undefined when there is none. */
  idToToken(id: number): string | undefined;
  isSpecial(id: number): boolean;
  /** Begin to turn tokens into text: what `decode` and `streamDecoder` are made of. */
  openText(): TokenText;
}

/** Text of ids that come one by one. */
export interface StreamDecoder {
  /** The text that this id finishes; a character that lacks bytes waits for the next. */
  push(id: number): string;
  /** What still waited: bytes that never became a character, as U+FFFD. Nothing may be pushed afterwards. */
  end(): string;
}

/**
 * The tokenizer in a model's folder: tokenizer.json; without it vocab.json and merges.txt (GPT-2's byte-level BPE);
 * without them vocab.txt (BERT's WordPiece). Beside them, where present: tokenizer_config.json,
 * special_tokens_map.json and added_tokens.json.
 * Throws BadInput when the folder has no tokenizer, CheckpointError (TOKENIZER, IO) when a file cannot be used.
 */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  const names = await listFolder(folder);
  if (names === undefined) throw new BadInput(`${folder}: got a file, expected a model's folder`);
  const { definition, settings } = await readFolder(folder, names);
  return open(complete(definition, settings), settings);
}

/** Decode ids as they are generated. The pieces joined are what `decode` gives for all ids at once. */
export function streamDecoder(tokenizer: Tokenizer, options: DecodeOptions = {}): StreamDecoder {
  const text = tokenizer.openText();
  return {
    push: (id) => text.push(tokensOf(tokenizer, [id], options)),
    end: () => text.end(),
  };
}

/**
 * Decode ids that continue a prompt. The decoder has seen the prompt, so that a word that goes on is not taken for a
 * text's first, and a character that the prompt's last bytes begin is completed.
 */
export function streamAfter(
  tokenizer: Tokenizer,
  prompt: readonly number[],
  options: DecodeOptions = {},
): StreamDecoder {
  const decoder = streamDecoder(tokenizer, options);
  for (const id of prompt) decoder.push(id);
  return decoder;
}

async function readFolder(folder: string, names: ReadonlySet<string>) {
  if (names.has("tokenizer.json")) {
    const definition = parseDefinition(await readSource(folder, "tokenizer.json"));
    const defaults = { BPE: GPT2_SPECIAL_TOKENS, WordPiece: BERT_SPECIAL_TOKENS, Unigram: {} };
    return { definition, settings: await readSettings(folder, names, defaults[definition.model.type]) };
  }
  if (names.has("vocab.json") || names.has("merges.txt")) {
    for (const name of ["vocab.json", "merges.txt"]) {
      if (!names.has(name)) throw new BadInput(`${folder}: has no ${name}, which belongs to the other file`);
    }
    const [vocabulary, merges] = [
      await readSource(folder, "vocab.json"),
      await readSource(folder, "merges.txt"),
    ];
    return {
      definition: fromMerges(vocabulary, merges),
      settings: await readSettings(folder, names, GPT2_SPECIAL_TOKENS),
    };
  }
  if (names.has("vocab.txt")) {
    const settings = await readSettings(folder, names, BERT_SPECIAL_TOKENS);
    if (settings.className !== undefined && settings.className !== "BertTokenizer") {
      const what = `tokenizer_class: got ${quote(settings.className)}, expected BertTokenizer beside a vocab.txt`;
      throw new CheckpointError(TOKENIZER, join(folder, "tokenizer_config.json"), what);
    }
    return { definition: fromWordList(await readSource(folder, "vocab.txt"), settings), settings };
  }
  const wanted = "tokenizer.json, or vocab.json with merges.txt, or vocab.txt";
  throw new BadInput(`${folder}: has no tokenizer, expected ${wanted}`);
}

/** The definition with what the settings add to it. */
function complete(definition: Definition, settings: TokenizerSettings): Definition {
  const vocabulary = vocabularyOf(definition);
  const tokens = new Map<string, AddedToken>();
  for (const token of [...definition.added_tokens, ...settings.addedTokens]) {
    if (!tokens.has(token.content)) tokens.set(token.content, token);
  }
  // A special token that the vocabulary lacks would get an id that the model has no row for: it stays plain text.
  for (const content of settings.specialTokens.values()) {
    const token = tokens.get(content);
    const id = token?.id ?? vocabulary.get(content);
    if (id !== undefined)
      tokens.set(content, { ...(token ?? { normalized: false }), id, content, special: true });
  }
  const prefix = settings.addPrefixSpace;
  const words = definition.pre_tokenizer;
  const prefixed = words?.type === "ByteLevel" && prefix !== undefined;
  return {
    ...definition,
    added_tokens: [...tokens.values()],
    pre_tokenizer: prefixed ? { ...words, add_prefix_space: prefix } : words,
    post_processor: bosAndEos(definition, settings) ?? definition.post_processor,
  };
}

/** `add_bos_token` and `add_eos_token`, where given, say what stands round a text. BERT has its own. */
function bosAndEos(definition: Definition, settings: TokenizerSettings): Definition["post_processor"] {
  if (definition.model.type === "WordPiece") return null;
  if (settings.addBos === undefined && settings.addEos === undefined) return null;
  const special = (name: string, wanted: boolean | undefined) => {
    const token = settings.specialTokens.get(name);
    return wanted && token !== undefined ? [{ SpecialToken: { id: token, type_id: 0 } }] : [];
  };
  const single = [
    ...special("bos_token", settings.addBos),
    { Sequence: { id: "A", type_id: 0 } },
    ...special("eos_token", settings.addEos),
  ];
  return { type: "TemplateProcessing", single, pair: single };
}

function open(definition: Definition, settings: TokenizerSettings): Tokenizer {
  const library = openLibrary(definition);
  const special = new Set(definition.added_tokens.flatMap((token) => (token.special ? [token.content] : [])));
  const idOf = (name: string) => library.token_to_id(settings.specialTokens.get(name) ?? "");
  const tokenizer: Tokenizer = {
    vocabSize: library.model.vocab.length,
    bosTokenId: idOf("bos_token"),
    eosTokenId: idOf("eos_token"),
    encode(text, { addSpecialTokens = true } = {}) {
      const whole = text.replace(/\p{Surrogate}/gu, "\uFFFD");
      return library.encode(whole, { add_special_tokens: addSpecialTokens }).ids;
    },
    decode(ids, options = {}) {
      const text = tokenizer.openText();
      return text.push(tokensOf(tokenizer, ids, options)) + text.end();
    },
    idToToken: (id) => library.id_to_token(id),
    isSpecial: (id) => special.has(library.id_to_token(id) ?? ""),
    openText: () => textOf(definition, settings, library),
  };
  requireWorking(tokenizer, definition.file);
  return tokenizer;
}

/** One run through every part. What is put round a text must be in the vocabulary. */
function requireWorking(tokenizer: Tokenizer, file: string): void {
  let ids: number[];
  try {
    ids = tokenizer.encode("");
    tokenizer.decode(ids);
  } catch (error) {
    throw new CheckpointError(
      TOKENIZER,
      file,
      `not a usable tokenizer: ${oneLine((error as Error).message)}`,
    );
  }
  if (ids.every((id) => Number.isInteger(id))) return;
  const what = "post_processor: got a token that is not in the vocabulary, expected one that is";
  throw new CheckpointError(TOKENIZER, file, what);
}

function textOf(definition: Definition, settings: TokenizerSettings, library: LibraryTokenizer): TokenText {
  const { decoder } = definition;
  if (decoder?.type === "ByteLevel") return byteLevelText();
  if (decoder?.type === "WordPiece") {
    const prefix = typeof decoder.prefix === "string" ? decoder.prefix : "##";
    return wordPieceText({
      prefix,
      cleanup: decoder.cleanup !== false,
      cleanUpSpaces: settings.cleanUpSpaces,
    });
  }
  return wholeText(library.decoder);
}

function tokensOf(tokenizer: Tokenizer, ids: readonly number[], options: DecodeOptions): string[] {
  const tokens: string[] = [];
  for (const id of ids) {
    const token = tokenizer.idToToken(id);
    if (token !== undefined && !(options.skipSpecialTokens && tokenizer.isSpecial(id))) tokens.push(token);
  }
  return tokens;
}
