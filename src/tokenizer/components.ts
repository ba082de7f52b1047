// The parts of a tokenizer.json that turn text into words and tokens into text: those that the library is known to
// run, with the fields that it cannot do without. It checks none of them itself: a FixedLength of 0 never ends, and a
// missing field is a TypeError with the first text.

import { z } from "zod";

/** A part of a tokenizer.json, checked. */
export interface Component {
  readonly type: string;
  readonly [field: string]: unknown;
}

/** Parts in one Sequence; the longest in use has 6. */
const MAX_PARTS = 32;
/** Characters of a pattern, a replacement or another text of a part. */
const MAX_TEXT = 2048;
/** How many times longer replacements may make a text: those of a Sequence multiply. */
const MAX_GROWTH = 256;
/** The longest run of characters that a Strip takes away. */
const MAX_STRIPPED = 1024;

const FLAG = z.boolean({ error: "true or false" }).nullish();
const TEXT = z.string({ error: "a string" }).max(MAX_TEXT, { error: `at most ${MAX_TEXT} characters` });
const SOME_TEXT = TEXT.min(1, { error: "at least one character" });
const COUNT = z
  .int({ error: "an integer" })
  .min(0, { error: "0 or more" })
  .max(MAX_STRIPPED, { error: `at most ${MAX_STRIPPED}` });
const PATTERN = z.union([z.looseObject({ String: SOME_TEXT }), z.looseObject({ Regex: SOME_TEXT })], {
  error: "an object with a String or a Regex",
});
const TOKEN_AND_ID = z.tuple([z.string(), z.number()], { error: "a token and its id" });
const TEMPLATE_PIECE = z.union(
  [
    z.looseObject({ SpecialToken: z.looseObject({ id: z.string() }) }),
    z.looseObject({ Sequence: z.looseObject({ id: z.literal("A") }) }),
  ],
  { error: "a SpecialToken with its id or the Sequence A" },
);

type Fields = Readonly<Record<string, z.ZodType>>;

const NORMALIZERS: Readonly<Record<string, Fields>> = {
  BertNormalizer: { clean_text: FLAG, handle_chinese_chars: FLAG, strip_accents: FLAG, lowercase: FLAG },
  Lowercase: {},
  NFC: {},
  NFD: {},
  NFKC: {},
  NFKD: {},
  Precompiled: {},
  Prepend: { prepend: TEXT },
  Replace: { pattern: PATTERN, content: TEXT },
  Strip: { strip_left: FLAG, strip_right: FLAG },
  StripAccents: {},
};
const PRE_TOKENIZERS: Readonly<Record<string, Fields>> = {
  BertPreTokenizer: {},
  ByteLevel: { add_prefix_space: FLAG, trim_offsets: FLAG, use_regex: FLAG },
  Digits: { individual_digits: FLAG },
  Metaspace: {
    replacement: SOME_TEXT,
    str_rep: SOME_TEXT.optional(),
    prepend_scheme: z.enum(["always", "first", "never"], { error: "always, first or never" }).optional(),
  },
  // The library keeps punctuation in a row together, whatever the file says.
  Punctuation: { behavior: z.literal("Contiguous", { error: "Contiguous" }) },
  Split: {
    pattern: PATTERN,
    behavior: z.enum(["Removed", "Isolated"], { error: "Removed or Isolated" }),
    invert: FLAG,
  },
  WhitespaceSplit: {},
};
const POST_PROCESSORS: Readonly<Record<string, Fields>> = {
  BertProcessing: { cls: TOKEN_AND_ID, sep: TOKEN_AND_ID },
  ByteLevel: {},
  RobertaProcessing: { cls: TOKEN_AND_ID, sep: TOKEN_AND_ID },
  TemplateProcessing: {
    single: z
      .array(TEMPLATE_PIECE, { error: "a list of pieces" })
      .max(MAX_PARTS, { error: `at most ${MAX_PARTS} pieces` }),
  },
};
const DECODERS: Readonly<Record<string, Fields>> = {
  BPEDecoder: { suffix: SOME_TEXT },
  ByteFallback: {},
  ByteLevel: {},
  Fuse: {},
  Metaspace: { replacement: SOME_TEXT },
  Replace: { pattern: PATTERN, content: TEXT },
  Strip: { content: TEXT, start: COUNT, stop: COUNT },
  WordPiece: { prefix: TEXT.nullish(), cleanup: FLAG },
};

export const NORMALIZER = components(NORMALIZERS, "normalizers");
export const PRE_TOKENIZER = components(PRE_TOKENIZERS, "pretokenizers");
export const POST_PROCESSOR = components(POST_PROCESSORS, "processors");
export const DECODER = components(DECODERS, "decoders");

/** A schema for one of the listed parts or a Sequence of them under the key `parts`; absent becomes null. */
function components(listed: Readonly<Record<string, Fields>>, parts: string) {
  const names = [...Object.keys(listed), "Sequence"].sort().join(", ");
  const TYPE = z.looseObject(
    { type: z.enum([...Object.keys(listed), "Sequence"], { error: `one of ${names}` }) },
    { error: "an object" },
  );
  const SEQUENCE = z.looseObject({
    [parts]: z
      .array(z.unknown(), { error: "a list of parts" })
      .max(MAX_PARTS, { error: `at most ${MAX_PARTS} parts` }),
  });
  const FIELDS = Object.fromEntries(
    Object.entries(listed).map(([name, fields]) => [name, z.looseObject(fields)]),
  );
  /** Issues of one part, of its own type only: a union of all would report every other's. */
  const check = (value: unknown, path: PropertyKey[], context: z.RefinementCtx): void => {
    const type = TYPE.safeParse(value);
    const schema = type.success ? (FIELDS[type.data.type] ?? SEQUENCE) : TYPE;
    const issues = schema.safeParse(value).error?.issues ?? [];
    for (const { message, path: inner } of issues) {
      context.addIssue({ code: "custom", message, path: [...path, ...inner] });
    }
    if (issues.length > 0 || schema !== SEQUENCE) return;
    const items = (value as Record<string, unknown[]>)[parts]!;
    for (const [index, item] of items.entries()) check(item, [...path, parts, index], context);
  };
  return z
    .unknown()
    .optional()
    .superRefine((value, context) => {
      if (value === null || value === undefined) return;
      check(value, [], context);
      if (context.issues.length === 0 && growth(value as Component) > MAX_GROWTH) {
        context.addIssue({
          code: "custom",
          message: `parts that make a text at most ${MAX_GROWTH} times longer`,
        });
      }
    })
    .transform((value) => (value ?? null) as Component | null);
}

/** An upper bound of how many times longer a checked part makes a text of at least one character. */
function growth(part: Component): number {
  const { content, prepend, normalizers, decoders } = part;
  const parts = (normalizers ?? decoders) as Component[] | undefined;
  if (part.type === "Sequence") return (parts ?? []).reduce((product, item) => product * growth(item), 1);
  // A pattern may match nothing, between any two characters.
  if (part.type === "Replace") return 1 + (content as string).length;
  return part.type === "Prepend" ? 1 + (prepend as string).length : 1;
}
