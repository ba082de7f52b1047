import { CheckpointError } from "../formats/checkpoint-error.ts";
import { quote } from "../formats/quote.ts";
import { type Definition, mergeFault } from "./definition.ts";
import type { TokenizerSettings } from "./settings.ts";
import {
  checkVocabulary,
  lineCount,
  parseObject,
  requireCount,
  type SourceText,
  TOKENIZER,
  type Vocabulary,
} from "./tokenizer-files.ts";
import { trimEndOf, WHITE_SPACE } from "./trim-end.ts";

const LINE_FEED: ReadonlySet<string> = new Set("\n");

/**
 * The tokenizer of GPT-2 from `vocab.json` (token to id) and `merges.txt` (a pair of tokens a line, most urgent first).
 * Throws CheckpointError TOKENIZER with the line of a broken or impossible merge.
 */
export function fromMerges(vocabularyFile: SourceText, mergesFile: SourceText): Definition {
  const vocabulary = parseObject(vocabularyFile);
  checkVocabulary(vocabulary, vocabularyFile);
  return {
    file: vocabularyFile.file,
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: { type: "BPE", vocab: vocabulary, merges: parseMerges(mergesFile, vocabulary) },
  };
}

/**
 * The tokenizer of BERT from `vocab.txt`: the token of id i on line i + 1. A token that stands twice has the later id.
 * Throws CheckpointError TOKENIZER when a token that the tokenizer needs is not in the file.
 */
export function fromWordList({ file, text }: SourceText, settings: TokenizerSettings): Definition {
  requireCount(file, "lines", lineCount(text));
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  const tokens = lines.map((line) => trimEndOf(line, WHITE_SPACE));
  const ids = new Map(tokens.map((token, id) => [token, id]));
  if (ids.size === 0) throw new CheckpointError(TOKENIZER, file, "got an empty vocabulary");
  const [unknown, first, last] = (["unk_token", "cls_token", "sep_token"] as const).map((name) => {
    const token = settings.specialTokens.get(name) ?? "";
    if (ids.has(token)) return token;
    const what = `got no token ${quote(token)}; name the one that takes its place as "${name}" in tokenizer_config.json`;
    throw new CheckpointError(TOKENIZER, file, what);
  }) as [string, string, string];
  return {
    file,
    added_tokens: [],
    normalizer: {
      type: "BertNormalizer",
      clean_text: true,
      handle_chinese_chars: settings.tokenizeChineseChars,
      strip_accents: settings.stripAccents,
      lowercase: settings.lowerCase,
    },
    pre_tokenizer: { type: "BertPreTokenizer" },
    post_processor: {
      type: "BertProcessing",
      cls: [first, ids.get(first)],
      sep: [last, ids.get(last)],
    },
    decoder: { type: "WordPiece", prefix: "##", cleanup: true },
    model: {
      type: "WordPiece",
      unk_token: unknown,
      continuing_subword_prefix: "##",
      max_input_chars_per_word: 100,
      vocab: Object.fromEntries(ids),
    },
  };
}

function parseMerges({ file, text }: SourceText, vocabulary: Vocabulary): [string, string][] {
  const merges: [string, string][] = [];
  const trimmed = trimEndOf(text, LINE_FEED);
  requireCount(file, "lines", lineCount(trimmed));
  const lines = trimmed.split("\n");
  for (const [index, raw] of lines.entries()) {
    const line = raw.replace(/\r$/, "");
    if (line.startsWith("#version") || (lines.length === 1 && line === "")) continue;
    const pair = line.split(" ");
    const fault = mergeFault(pair, vocabulary);
    if (fault !== undefined) {
      throw new CheckpointError(TOKENIZER, file, `line ${index + 1}: got ${quote(line)}, ${fault}`);
    }
    merges.push([pair[0]!, pair[1]!]);
  }
  return merges;
}
