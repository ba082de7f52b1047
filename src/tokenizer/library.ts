import { Tokenizer } from "@huggingface/tokenizers";
import { CheckpointError } from "../formats/checkpoint-error.ts";
import { oneLine } from "../formats/quote.ts";
import { type BertNormalizerConfig, bertNormalizer, type Normalizer } from "./bert-normalizer.ts";
import { type Definition, vocabularyOf } from "./definition.ts";
import { wordMerger } from "./long-words.ts";
import { TOKENIZER } from "./tokenizer-files.ts";

/** What this engine uses of the library's Tokenizer, whose own types do not resolve under Node's rules (0.2.0). */
export interface LibraryTokenizer {
  normalizer: NormalizerPart | null;
  readonly pre_tokenizer: WordsPart | null;
  readonly model: ModelPart;
  readonly decoder: { decode(tokens: readonly string[]): string } | null;
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
}

interface NormalizerPart extends Normalizer {
  readonly config?: { readonly type?: string };
  /** Of a sequence. */
  normalizers?: (NormalizerPart | null)[];
}

interface WordsPart {
  readonly config?: { readonly type?: string };
  pattern?: RegExp;
  /** Of a sequence. */
  readonly tokenizers?: readonly (WordsPart | null)[];
}

interface ModelPart {
  /** Id to token. */
  readonly vocab: readonly string[];
  readonly end_of_word_suffix?: string | null;
  /** Of BPE: the tokens of one word. */
  bpe?: (word: string) => string[];
}

/**
 * GPT-2's pattern with Unicode's white space, as Hugging Face's Rust library reads it; JavaScript's \s has U+FEFF in
 * it and lacks U+0085.
 */
const GPT2_WORDS =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;
/** Words from this length on are merged here: the library's cache ends there, and its cost per character is high. */
const LONG_WORD = 256;

/**
 * Hugging Face's tokenizer for a definition, with what differs from their Rust library put right (docs/decisions.md).
 * Throws CheckpointError TOKENIZER with the library's words when it cannot use the definition.
 */
export function openLibrary(definition: Definition): LibraryTokenizer {
  const library = construct(definition);
  library.normalizer = correctNormalizer(library.normalizer);
  correctWords(library.pre_tokenizer);
  mergeLongWords(library.model, definition);
  return library;
}

function construct(definition: Definition): LibraryTokenizer {
  const { file, ...json } = definition;
  try {
    // The second argument is tokenizer_config.json, of which the library would follow options that Rust does not have.
    return new Tokenizer(json, { clean_up_tokenization_spaces: false }) as unknown as LibraryTokenizer;
  } catch (error) {
    throw new CheckpointError(
      TOKENIZER,
      file,
      `not a usable tokenizer: ${oneLine((error as Error).message)}`,
    );
  }
}

function correctNormalizer(normalizer: NormalizerPart | null): NormalizerPart | null {
  if (normalizer?.normalizers) normalizer.normalizers = normalizer.normalizers.map(correctNormalizer);
  if (normalizer?.config?.type !== "BertNormalizer") return normalizer;
  return bertNormalizer(normalizer.config as BertNormalizerConfig);
}

function correctWords(words: WordsPart | null): void {
  if (words?.config?.type === "ByteLevel") words.pattern = GPT2_WORDS;
  words?.tokenizers?.forEach(correctWords);
}

function mergeLongWords(model: ModelPart, definition: Definition): void {
  if (model.bpe === undefined || model.end_of_word_suffix) return;
  const { merges } = definition.model as unknown as { merges: [string, string][] };
  const mergeLong = wordMerger(vocabularyOf(definition), merges);
  const mergeShort = model.bpe.bind(model);
  model.bpe = (word) => (word.length < LONG_WORD ? mergeShort(word) : mergeLong(word));
}
