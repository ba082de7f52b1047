/** How the library calls a normalizer: as a function, or by its method. */
export interface Normalizer {
  (text: string): string;
  normalize(text: string): string;
}

/** The fields of a tokenizer.json's BertNormalizer. */
export interface BertNormalizerConfig {
  /** Remove control characters, make every white space a space. */
  readonly clean_text?: boolean;
  /** A space on both sides of each Chinese character. */
  readonly handle_chinese_chars?: boolean;
  /** Null or absent: as `lowercase`. */
  readonly strip_accents?: boolean | null;
  readonly lowercase?: boolean;
}

const REMOVED = /\uFFFD|(?![\t\n\r])[\p{Cc}\p{Cf}\p{Co}]/gu;
const WHITE_SPACE = /\p{White_Space}/gu;
/** The blocks that Hugging Face's Rust normalizer tests for: U+2B820 to U+2B91F is left out there too. */
const CHINESE =
  /[\u4E00-\u9FFF\u3400-\u4DBF\u{20000}-\u{2A6DF}\u{2A700}-\u{2B81F}\u{2B920}-\u{2CEAF}\uF900-\uFAFF\u{2F800}-\u{2FA1F}]/gu;
const ACCENTS = /\p{Mn}/gu;
const CAPITAL_SIGMA = /Σ/g;

/**
 * BERT's normalizer as Hugging Face's Rust library has it; all options on by default.
 * The JavaScript library's own differs: it overlooks Chinese characters above U+FFFF, lowers before it strips, and
 * writes a capital sigma at a word's end as ς where Rust, which lowers letter by letter, writes σ.
 */
export function bertNormalizer(config: BertNormalizerConfig): Normalizer {
  const lowercase = config.lowercase ?? true;
  const stripAccents = config.strip_accents ?? lowercase;
  const normalize = (text: string): string => {
    let result = text;
    if (config.clean_text ?? true) result = result.replace(REMOVED, "").replace(WHITE_SPACE, " ");
    if (config.handle_chinese_chars ?? true) result = result.replace(CHINESE, " $& ");
    if (stripAccents) result = result.normalize("NFD").replace(ACCENTS, "");
    if (lowercase) result = result.replace(CAPITAL_SIGMA, "σ").toLowerCase();
    return result;
  };
  return Object.assign((text: string) => normalize(text), { normalize });
}
