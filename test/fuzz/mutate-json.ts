import type { Random } from "./random.ts";

/** One JSON token, or white space, or whatever else stands there. */
const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[{}[\]:,]|\s+|./gs;
const MAX_CHANGES = 3;

/** Values to put in a value's place: the ends of number ranges, other types, names with a meaning elsewhere. */
const VALUES = [
  ..."0 1 2 3 -1 -0 1.5 1e2 1e999 64 2147483648 4294967296 9007199254740993 9223372036854775807".split(" "),
  ..."18446744073709551614 18446744073709551615 18446744073709551616 null true false {} [] [[]]".split(" "),
  ...['""', '"__proto__"', '"constructor"', '"__metadata__"', '"dtype"', '"shape"', '"data_offsets"', '"w"'],
  ...['"F32"', '"F16"', '"F4"', '"BOOL"', '"F31"', '"../../x"', '"\\u0077"', '"a\\u0000b"', '"gelu"', '"s2"'],
  ...["[0,0]", "[0,4]", "[1,2,3,4,5,6,7,8,9]", '{"a":{"b":[{"c":[[[[1]]]]}]}}'],
];
/** Texts that seldom leave JSON behind. */
const SCRAPS = [
  ",",
  ":",
  "{",
  "}",
  "[",
  "]",
  " ",
  '"',
  "NaN",
  "01",
  ".5",
  "\ufeff",
  '"\\ud800"',
  "'a'",
  "//",
];

/** JSON text with one to three changes; most of them leave it JSON, which changed bytes seldom do. */
export function mutateJson(text: string, random: Random): string {
  const tokens = text.match(TOKEN) ?? [];
  const changes = 1 + random.below(1 + random.below(MAX_CHANGES));
  for (let change = 0; change < changes && tokens.length > 0; change++) {
    if (random.below(8) === 0) changeToken(tokens, random);
    else
      random.pick([changeNumber, changeNumber, changeValue, changeString, repeatMember, deleteMember])(
        tokens,
        random,
      );
  }
  return tokens.join("");
}

function changeToken(tokens: string[], random: Random): void {
  const at = random.below(tokens.length);
  const scrap = random.pick([...SCRAPS, tokens[random.below(tokens.length)] ?? ""]);
  tokens.splice(at, random.below(3), ...(random.below(2) === 0 ? [scrap] : []));
}

function changeValue(tokens: string[], random: Random): void {
  const at = next(tokens, random, (token) => /^["\dtfn-]/.test(token));
  // A key may only become another string.
  const values = tokens[at + 1] === ":" ? VALUES.filter((value) => value.startsWith('"')) : VALUES;
  if (at >= 0) tokens[at] = random.pick([...values, tokens[at] ?? ""]);
}

/** A string with one character replaced, left out or escaped, or a string from elsewhere in the text. */
function changeString(tokens: string[], random: Random): void {
  const at = next(tokens, random, (token) => token.length > 2 && token.startsWith('"'));
  const other = tokens[next(tokens, random, (token) => token.startsWith('"'))];
  const token = tokens[at];
  if (token === undefined || other === undefined) return;
  const cut = 1 + random.below(token.length - 2);
  const piece = random.pick(["", "x", "\\n", "é", "\\u0077", "/", "\n", "\\"]);
  tokens[at] = random.below(3) === 0 ? other : token.slice(0, cut) + piece + token.slice(cut + 1);
}

/** A member or item once more, behind itself. */
function repeatMember(tokens: string[], random: Random): void {
  const [begin, end] = member(tokens, random);
  if (begin < end) tokens.splice(end, 0, ",", ...tokens.slice(begin, end));
}

function deleteMember(tokens: string[], random: Random): void {
  const [begin, end] = member(tokens, random);
  const comma = tokens[end] === "," ? 1 : 0;
  tokens.splice(begin, end - begin + comma);
}

/** Tokens [begin, end) between two separators of one level. */
function member(tokens: readonly string[], random: Random): [begin: number, end: number] {
  const begin = 1 + next(tokens, random, (token) => token === "{" || token === "[" || token === ",");
  let depth = 0;
  let end = begin;
  for (; end < tokens.length; end++) {
    const token = tokens[end] ?? "";
    if (token === "{" || token === "[") depth++;
    if ((token === "}" || token === "]") && --depth < 0) break;
    if (token === "," && depth === 0) break;
  }
  return [begin, end];
}

/** Index of a random one of the tokens that `wanted` takes, -1 when there is none. */
function next(tokens: readonly string[], random: Random, wanted: (token: string) => boolean): number {
  const from = random.below(tokens.length);
  const at = tokens.findIndex((token, index) => index >= from && wanted(token));
  return at >= 0 ? at : tokens.findIndex(wanted);
}

/** A number a little changed: offsets and shapes that nearly fit. */
function changeNumber(tokens: string[], random: Random): void {
  const at = next(tokens, random, (token) => /^\d{1,30}$/.test(token));
  if (at < 0) return;
  const value = BigInt(tokens[at] ?? "0");
  tokens[at] = String(
    random.pick([value + 1n, value - 1n, value * 2n, value + 4n, value / 2n, -value, value << 32n]),
  );
}
