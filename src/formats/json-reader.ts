import { CheckpointError } from "./checkpoint-error.ts";
import { escapeAt, escapeLength } from "./json-escape.ts";
import { quote } from "./quote.ts";
import { TextBuilder } from "./text-builder.ts";
import { firstInvalidUtf8 } from "./utf8.ts";

/** What JSON calls the value that comes next. */
export type JsonKind = "object" | "array" | "string" | "number" | "boolean" | "null";

/** The text that is read and the error codes its faults get. */
export interface JsonSource {
  /** File name for messages. */
  readonly file: string;
  /** What the text is: "header", "index". */
  readonly what: string;
  readonly codes: {
    readonly utf8: string;
    readonly json: string;
    readonly depth: string;
    readonly duplicate: string;
    readonly limit: string;
  };
  /** Default: those of a header. */
  readonly limits?: JsonLimits;
}

export interface JsonLimits {
  /** Objects and arrays inside one another. */
  readonly depth: number;
  /** Keys in the whole text: bounds time and memory of the search for duplicates. */
  readonly keys: number;
  /** Values of any kind in the whole text: bounds what JSON.parse makes of it. */
  readonly values: number;
}

/** Safetensors need a depth of 3, and 400,000 keys for 100,000 tensors; values that nobody wants cost no memory. */
const HEADER_LIMITS: JsonLimits = { depth: 8, keys: 500_000, values: Number.POSITIVE_INFINITY };
const TRUE = Uint8Array.from("true", (character) => character.charCodeAt(0));
const FALSE = Uint8Array.from("false", (character) => character.charCodeAt(0));
const NULL = Uint8Array.from("null", (character) => character.charCodeAt(0));
const TAB = 0x09;
const LINE_FEED = 0x0a;
const RETURN = 0x0d;
const SPACE = 0x20;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const MINUS = 0x2d;
const PLUS = 0x2b;
const POINT = 0x2e;
const DIGIT_0 = 0x30;
const LETTER_E = 0x65;
const LETTER_F = 0x66;
const LETTER_N = 0x6e;
const LETTER_T = 0x74;
const BRACKET = 0x5b;
const BRACE = 0x7b;

/**
 * A strict JSON reader (RFC 8259) that walks the bytes and hands out one value at a time, because JSON.parse
 * keeps the last of two equal keys, rounds integers above 2^53, and builds the whole tree before anything is checked.
 * Numbers come as their text. Throws CheckpointError with the source's codes; positions count from the text's start.
 */
export class JsonReader {
  private readonly source: JsonSource;
  private readonly bytes: Uint8Array;
  private readonly builder = new TextBuilder();
  private at = 0;
  private depth = 0;
  private keys = 0;
  private values = 0;
  private readonly limits: JsonLimits;

  constructor(source: JsonSource, bytes: Uint8Array) {
    this.source = source;
    this.limits = source.limits ?? HEADER_LIMITS;
    this.bytes = bytes;
    const bad = firstInvalidUtf8(bytes);
    if (bad >= 0) {
      const byte = hex(bytes[bad]!);
      throw this.error(source.codes.utf8, `${source.what} is not UTF-8 at byte ${bad}: got ${byte}`);
    }
  }

  /** Kind of the next value, which stays unread. */
  kind(): JsonKind {
    this.skipSpace();
    const byte = this.bytes[this.at] ?? 0;
    if (byte === QUOTE) return "string";
    if (byte === BRACE) return "object";
    if (byte === BRACKET) return "array";
    if (byte === LETTER_T || byte === LETTER_F) return "boolean";
    if (byte === LETTER_N) return "null";
    if (byte === MINUS || (byte >= DIGIT_0 && byte <= DIGIT_0 + 9)) return "number";
    throw this.unexpected("a value");
  }

  /** Read an object; `onMember` reads exactly one value for each key. Two equal keys are an error. */
  object(onMember: (key: string) => void): void {
    this.open("{");
    const seen = new Set<string>();
    if (!this.accept("}")) {
      do {
        this.skipSpace();
        const begin = this.at;
        const key = this.string();
        if (seen.has(key)) {
          throw this.error(
            this.source.codes.duplicate,
            `${quote(key)} appears twice, again at byte ${begin}`,
          );
        }
        if (++this.keys > this.limits.keys) throw this.tooMany("keys");
        seen.add(key);
        this.expect(":");
        onMember(key);
      } while (this.accept(","));
      this.expect("}");
    }
    this.depth--;
  }

  /** Read an array; `onItem` reads exactly one value for each item. */
  array(onItem: (index: number) => void): void {
    this.open("[");
    if (!this.accept("]")) {
      let index = 0;
      do onItem(index++);
      while (this.accept(","));
      this.expect("]");
    }
    this.depth--;
  }

  string(): string {
    this.expect('"');
    for (;;) {
      const begin = this.at;
      const byte = this.skipPlain();
      this.builder.addBytes(this.bytes, begin, this.at);
      if (byte === QUOTE) break;
      this.builder.addCodePoint(this.escape());
    }
    this.at++;
    return this.builder.take();
  }

  /** The number as it is written: the caller decides what it may be. */
  number(): string {
    this.skipSpace();
    const begin = this.at;
    this.skipNumber();
    this.builder.addBytes(this.bytes, begin, this.at);
    return this.builder.take();
  }

  /** Read the next value, whatever it is, and forget it. */
  skip(): void {
    const kind = this.kind();
    if (++this.values > this.limits.values) throw this.tooMany("values");
    if (kind === "object") this.object(() => this.skip());
    else if (kind === "array") this.array(() => this.skip());
    else if (kind === "string") this.skipString();
    else if (kind === "number") this.skipNumber();
    else this.literal(kind === "null" ? NULL : this.bytes[this.at] === LETTER_T ? TRUE : FALSE);
  }

  /** Start over: a caller that has skipped through the whole text knows it to be JSON and now reads what it means. */
  rewind(): void {
    this.at = 0;
    this.depth = 0;
    this.keys = 0;
    this.values = 0;
  }

  /** Only white space may be left. */
  end(): void {
    this.skipSpace();
    if (this.at < this.bytes.length) throw this.unexpected("the end");
  }

  /** A number's grammar: minus, whole part without leading zeros, fraction, exponent. */
  private skipNumber(): void {
    if (this.bytes[this.at] === MINUS) this.at++;
    if (this.bytes[this.at] === DIGIT_0) this.at++;
    else this.skipDigits();
    if (this.bytes[this.at] === POINT) {
      this.at++;
      this.skipDigits();
    }
    // The bit 0x20 makes a letter small.
    if ((this.bytes[this.at]! | 0x20) !== LETTER_E) return;
    this.at++;
    if (this.bytes[this.at] === MINUS || this.bytes[this.at] === PLUS) this.at++;
    this.skipDigits();
  }

  private skipDigits(): void {
    const begin = this.at;
    while (this.bytes[this.at]! >= DIGIT_0 && this.bytes[this.at]! <= DIGIT_0 + 9) this.at++;
    if (this.at === begin) throw this.unexpected("a digit");
  }

  private literal(word: Uint8Array): void {
    for (let i = 0; i < word.length; i++) {
      if (this.bytes[this.at + i] !== word[i]) throw this.unexpected("a value");
    }
    this.at += word.length;
  }

  private skipString(): void {
    this.expect('"');
    while (this.skipPlain() !== QUOTE) this.escape();
    this.at++;
  }

  /** Pass over what stands for itself in a string; the byte that ends it, a quote or a backslash. */
  private skipPlain(): number {
    const { bytes } = this;
    let at = this.at;
    let byte = bytes[at];
    while (byte !== undefined && byte >= SPACE && byte !== QUOTE && byte !== BACKSLASH) byte = bytes[++at];
    this.at = at;
    if (byte === undefined || byte < SPACE) throw this.unexpected("the end of a string");
    return byte;
  }

  /** The code point of the escape that comes next. */
  private escape(): number {
    const codePoint = escapeAt(this.bytes, this.at);
    if (codePoint < 0) throw this.unexpected("a JSON escape");
    this.at += escapeLength(this.bytes, this.at, codePoint);
    return codePoint;
  }

  private open(bracket: "{" | "["): void {
    this.expect(bracket);
    this.depth++;
    if (this.depth > this.limits.depth) {
      const where = `${this.source.what} nests deeper than ${this.limits.depth} at byte ${this.at - 1}`;
      throw this.error(this.source.codes.depth, where);
    }
  }

  private accept(character: string): boolean {
    this.skipSpace();
    if (this.bytes[this.at] !== character.charCodeAt(0)) return false;
    this.at++;
    return true;
  }

  private expect(character: string): void {
    if (!this.accept(character)) throw this.unexpected(`'${character}'`);
  }

  private skipSpace(): void {
    for (; this.at < this.bytes.length; this.at++) {
      const byte = this.bytes[this.at];
      if (byte !== SPACE && byte !== LINE_FEED && byte !== RETURN && byte !== TAB) return;
    }
  }

  private tooMany(what: "keys" | "values"): CheckpointError {
    const limit = this.limits[what];
    return this.error(this.source.codes.limit, `${this.source.what} has more than ${limit} ${what}`);
  }

  private unexpected(expected: string): CheckpointError {
    const byte = this.bytes[this.at];
    const where = `${this.source.what} is not JSON at byte ${this.at}`;
    return this.error(
      this.source.codes.json,
      `${where}: got ${byte === undefined ? "the end" : show(byte)}, expected ${expected}`,
    );
  }

  private error(code: string, detail: string): CheckpointError {
    return new CheckpointError(code, this.source.file, detail);
  }
}

function show(byte: number): string {
  return byte > SPACE && byte < 0x7f ? `'${String.fromCharCode(byte)}'` : hex(byte);
}

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, "0")}`;
}
