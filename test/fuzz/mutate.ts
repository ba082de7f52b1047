import type { Random } from "./random.ts";

/** What a byte mutator works with. */
export interface Material {
  readonly random: Random;
  /** Sound files; splices take from them. */
  readonly seeds: readonly Uint8Array[];
  /** Byte strings that mean something to the parser: opcodes, signatures. */
  readonly words: readonly Uint8Array[];
}

type Mutator = (bytes: Uint8Array, material: Material) => Uint8Array;

/** Values at which lengths, counts and offsets go wrong: zero, signs, powers of two and their neighbours. */
const INTEGERS = [0n, 1n, 7n, 8n, 0x7fn, 0x80n, 0xffn, 0x100n, 0x7fffn, 0x8000n, 0xffffn, 0x10000n].concat(
  [31n, 32n, 53n, 63n, 64n].flatMap((bits) => [2n ** bits - 1n, 2n ** bits, 2n ** bits + 1n]),
  [100_000_000n, 100_000_001n],
);
const MAX_CHANGES = 4;
/** Bytes that one insertion or repetition adds at most. */
const MAX_RUN = 64;

/** `bytes` with one to four random changes. */
export function mutate(bytes: Uint8Array, material: Material): Uint8Array {
  let changed = bytes;
  // Few changes more often than many: the first ones tend to end a parse before the others are met.
  const changes = 1 + material.random.below(1 + material.random.below(MAX_CHANGES));
  for (let change = 0; change < changes; change++)
    changed = material.random.pick(MUTATORS)(changed, material);
  return changed;
}

const MUTATORS: readonly Mutator[] = [
  flipBit,
  setByte,
  insertBytes,
  deleteRange,
  repeatRange,
  moveRange,
  cut,
  splice,
  setInteger,
  setInteger,
  insertWord,
  overwriteWithWord,
];

function flipBit(bytes: Uint8Array, { random }: Material): Uint8Array {
  const at = place(bytes, random);
  return replace(bytes, at, Uint8Array.of((bytes[at] ?? 0) ^ (1 << random.below(8))));
}

function setByte(bytes: Uint8Array, { random }: Material): Uint8Array {
  return replace(
    bytes,
    place(bytes, random),
    Uint8Array.of(random.pick([0, 1, 0x7f, 0x80, 0xff, random.below(256)])),
  );
}

function insertBytes(bytes: Uint8Array, { random }: Material): Uint8Array {
  const same = random.below(256);
  const run = Uint8Array.from({ length: 1 + random.below(MAX_RUN) }, () =>
    random.pick([same, random.below(256)]),
  );
  return insert(bytes, place(bytes, random), run);
}

function deleteRange(bytes: Uint8Array, { random }: Material): Uint8Array {
  const at = place(bytes, random);
  return join(
    bytes.subarray(0, at),
    bytes.subarray(at + 1 + random.below(random.pick([1, 8, bytes.length]))),
  );
}

function repeatRange(bytes: Uint8Array, { random }: Material): Uint8Array {
  const at = place(bytes, random);
  return insert(bytes, at, bytes.slice(at, at + 1 + random.below(MAX_RUN)));
}

function moveRange(bytes: Uint8Array, { random }: Material): Uint8Array {
  const from = place(bytes, random);
  return replace(bytes, place(bytes, random), bytes.slice(from, from + 1 + random.below(MAX_RUN)));
}

function cut(bytes: Uint8Array, { random }: Material): Uint8Array {
  return bytes.subarray(0, place(bytes, random));
}

function splice(bytes: Uint8Array, { random, seeds }: Material): Uint8Array {
  const other = random.pick(seeds);
  return join(bytes.subarray(0, place(bytes, random)), other.subarray(place(other, random)));
}

function setInteger(bytes: Uint8Array, { random }: Material): Uint8Array {
  const width = random.pick([1, 2, 4, 8]);
  const value = random.pick([...INTEGERS, BigInt(bytes.length), BigInt(random.below(bytes.length))]);
  const integer = new DataView(new ArrayBuffer(8));
  integer.setBigUint64(0, random.below(4) === 0 ? -value : value, true);
  const little = new Uint8Array(integer.buffer, 0, width);
  return replace(bytes, place(bytes, random), random.below(8) === 0 ? little.toReversed() : little);
}

function insertWord(bytes: Uint8Array, material: Material): Uint8Array {
  if (material.words.length === 0) return insertBytes(bytes, material);
  return insert(bytes, place(bytes, material.random), material.random.pick(material.words));
}

function overwriteWithWord(bytes: Uint8Array, material: Material): Uint8Array {
  if (material.words.length === 0) return setByte(bytes, material);
  return replace(bytes, place(bytes, material.random), material.random.pick(material.words));
}

/** A position: anywhere, or near the start or the end, where formats keep their lengths and directories. */
function place(bytes: Uint8Array, random: Random): number {
  const near = random.below(Math.min(bytes.length, MAX_RUN));
  return random.pick([random.below(bytes.length), near, Math.max(0, bytes.length - 1 - near)]);
}

function replace(bytes: Uint8Array, at: number, by: Uint8Array): Uint8Array {
  const copy = bytes.slice();
  copy.set(by.subarray(0, Math.max(0, copy.length - at)), Math.min(at, copy.length));
  return copy;
}

function insert(bytes: Uint8Array, at: number, added: Uint8Array): Uint8Array {
  return join(bytes.subarray(0, at), added, bytes.subarray(at));
}

function join(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
