import { CheckpointError } from "./checkpoint-error.ts";
import { type JsonKind, JsonReader } from "./json-reader.ts";
import { quote } from "./quote.ts";

/** One tensor as the header states it, checked by itself but not yet against its neighbours or the file. */
export interface HeaderEntry {
  readonly name: string;
  /** Any dtype that the format knows, also those this engine cannot read. */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Bits that shape and dtype ask for; fits in an unsigned 64-bit integer. */
  readonly bits: bigint;
  /** Data bytes [begin, end), counted from the end of the header. */
  readonly begin: number;
  readonly end: number;
}

export interface Header {
  /** In the order of the header. */
  readonly entries: readonly HeaderEntry[];
  readonly metadata: ReadonlyMap<string, string>;
}

const MAX_TENSORS = 100_000;
/** Characters; the longest names in use have about 100. */
const MAX_NAME = 4096;
const MAX_RANK = 8;
const MAX_U64 = 2n ** 64n - 1n;
/** Whole numbers up to here survive the way into a JavaScript number. */
const MAX_EXACT = 2n ** 53n;
/** Digits of the largest unsigned 64-bit integer; longer texts never reach BigInt. */
const U64 = /^(?:0|[1-9][0-9]{0,19})$/;

/** Bits per element of every dtype that safetensors 0.7 can write. */
const DTYPE_BITS = new Map([
  ["BOOL", 8],
  ["F4", 4],
  ["F6_E2M3", 6],
  ["F6_E3M2", 6],
  ["U8", 8],
  ["I8", 8],
  ["F8_E5M2", 8],
  ["F8_E4M3", 8],
  ["F8_E5M2FNUZ", 8],
  ["F8_E4M3FNUZ", 8],
  ["F8_E8M0", 8],
  ["I16", 16],
  ["U16", 16],
  ["F16", 16],
  ["BF16", 16],
  ["I32", 32],
  ["U32", 32],
  ["F32", 32],
  ["C64", 64],
  ["F64", 64],
  ["I64", 64],
  ["U64", 64],
]);

const CODES = {
  utf8: "HEADER_UTF8",
  json: "HEADER_JSON",
  depth: "HEADER_DEPTH",
  duplicate: "DUPLICATE_KEY",
  limit: "HEADER_LIMIT",
};

/** Parse the JSON header of a safetensors file; `file` names it in messages. Throws CheckpointError. */
export function parseHeader(file: string, bytes: Uint8Array): Header {
  const json = new JsonReader({ file, what: "header", codes: CODES }, bytes);
  const scan: Scan = { file, json };
  const entries: HeaderEntry[] = [];
  let metadata: ReadonlyMap<string, string> = new Map();
  requireJson(scan);
  wantKind(scan, "object", "HEADER_NOT_OBJECT", "header must be a JSON object");
  json.object((name) => {
    if (name === "__metadata__") {
      metadata = readMetadata(scan);
      return;
    }
    if (name.length > MAX_NAME) {
      const what = `tensor name ${quote(name)}: got ${name.length} characters, expected at most ${MAX_NAME}`;
      throw new CheckpointError("NAME_TOO_LONG", file, what);
    }
    entries.push(readEntry(scan, name));
  });
  return { entries, metadata };
}

/** A first walk for the syntax alone: broken JSON is a nearer fault than anything it might mean. */
function requireJson({ file, json }: Scan): void {
  let tensors = 0;
  if (json.kind() === "object") {
    json.object((name) => {
      // Refused on the way, so that a header of a million tensors costs no more than one of a hundred thousand.
      if (name !== "__metadata__" && ++tensors > MAX_TENSORS) {
        throw new CheckpointError("TOO_MANY_TENSORS", file, `header has more than ${MAX_TENSORS} tensors`);
      }
      json.skip();
    });
  } else {
    json.skip();
  }
  json.end();
  json.rewind();
}

interface Scan {
  readonly file: string;
  readonly json: JsonReader;
}

function readMetadata(scan: Scan): ReadonlyMap<string, string> {
  const metadata = new Map<string, string>();
  wantKind(scan, "object", "METADATA", "`__metadata__` must be an object of strings");
  scan.json.object((key) => {
    wantKind(scan, "string", "METADATA", `value of ${quote(key)} must be a string`);
    metadata.set(key, scan.json.string());
  });
  return metadata;
}

function readEntry(scan: Scan, name: string): HeaderEntry {
  const { file, json } = scan;
  const shown = quote(name);
  let dtype: string | undefined;
  let shape: bigint[] | undefined;
  let offsets: bigint[] | undefined;
  wantKind(scan, "object", "FIELD_MISSING", `${shown} must be an object with dtype, shape, data_offsets`);
  json.object((field) => {
    if (field === "dtype") dtype = readDtype(scan, shown);
    else if (field === "shape") shape = readIntegers(scan, shown, SHAPE);
    else if (field === "data_offsets") offsets = readIntegers(scan, shown, OFFSETS);
    else json.skip();
  });
  if (dtype === undefined) throw missing(file, shown, "dtype");
  if (shape === undefined) throw missing(file, shown, "shape");
  if (offsets === undefined) throw missing(file, shown, "data_offsets");
  const bits = checkedBits(file, shown, dtype, shape);
  for (const dimension of shape) requireExact(file, shown, SHAPE, dimension);
  const [begin, end] = offsets;
  if (begin === undefined || end === undefined) {
    throw new CheckpointError(
      "OFFSETS",
      file,
      `data_offsets of ${shown}: got ${offsets.length} values, expected 2`,
    );
  }
  if (end < begin) {
    throw new CheckpointError(
      "OFFSETS",
      file,
      `data_offsets of ${shown} end at ${end}, before they begin at ${begin}`,
    );
  }
  requireExact(file, shown, OFFSETS, end);
  return { name, dtype, shape: shape.map(Number), bits, begin: Number(begin), end: Number(end) };
}

function missing(file: string, shown: string, field: string): CheckpointError {
  return new CheckpointError("FIELD_MISSING", file, `${shown} has no ${field}`);
}

function readDtype(scan: Scan, shown: string): string {
  wantKind(scan, "string", "DTYPE_UNKNOWN", `dtype of ${shown} must be a string`);
  const dtype = scan.json.string();
  if (DTYPE_BITS.has(dtype)) return dtype;
  throw new CheckpointError(
    "DTYPE_UNKNOWN",
    scan.file,
    `dtype of ${shown}: got ${quote(dtype)}, expected one like F32`,
  );
}

/** A list of whole numbers in a tensor's entry. */
interface IntegerList {
  readonly field: string;
  readonly code: string;
  readonly maxLength: number;
  readonly lengthCode: string;
}

const SHAPE: IntegerList = { field: "shape", code: "SHAPE", maxLength: MAX_RANK, lengthCode: "SHAPE_RANK" };
const OFFSETS: IntegerList = { field: "data_offsets", code: "OFFSETS", maxLength: 2, lengthCode: "OFFSETS" };

function readIntegers(scan: Scan, shown: string, list: IntegerList): bigint[] {
  const { file, json } = scan;
  const integers: bigint[] = [];
  wantKind(scan, "array", list.code, `${list.field} of ${shown} must be an array`);
  json.array((index) => {
    if (index === list.maxLength) {
      const what = `${list.field} of ${shown}: got more than ${list.maxLength} values, expected`;
      const expected = list === SHAPE ? `at most ${list.maxLength}` : `${list.maxLength}`;
      throw new CheckpointError(list.lengthCode, file, `${what} ${expected}`);
    }
    const where = `${list.field}[${index}] of ${shown}`;
    wantKind(scan, "number", list.code, `${where} must be a whole number`);
    const text = json.number();
    if (!U64.test(text) || BigInt(text) > MAX_U64) {
      const got = text.length > 40 ? `${text.slice(0, 40)}…` : text;
      throw new CheckpointError(list.code, file, `${where}: got ${got}, expected a whole number, 0 or more`);
    }
    integers.push(BigInt(text));
  });
  return integers;
}

function requireExact(file: string, shown: string, list: IntegerList, value: bigint): void {
  if (value <= MAX_EXACT) return;
  throw new CheckpointError(
    list.code,
    file,
    `${list.field} of ${shown}: got ${value}, expected at most ${MAX_EXACT}`,
  );
}

/** Elements times bits, multiplied from left to right in 64 bits as the format's own reader does it. */
function checkedBits(file: string, shown: string, dtype: string, shape: readonly bigint[]): bigint {
  let product = 1n;
  for (const factor of [...shape, BigInt(DTYPE_BITS.get(dtype) ?? 0)]) {
    product *= factor;
    if (product > MAX_U64) {
      const what = `size of ${shown} [${shape.join(",")}] ${dtype} does not fit in 64 bits`;
      throw new CheckpointError("SIZE_OVERFLOW", file, what);
    }
  }
  return product;
}

function wantKind(scan: Scan, wanted: JsonKind, code: string, what: string): void {
  const kind = scan.json.kind();
  if (kind === wanted) return;
  throw new CheckpointError(code, scan.file, `${what}, got ${kind}`);
}
