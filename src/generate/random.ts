// Random numbers by counter: a number is a function of (seed, sequence, step) and of nothing that happened before, so
// that neither batching, nor the order of work, nor the device changes which tokens a seed gives.
//
// Philox-4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Every
// intermediate value fits into 32 bits without a sign, so a shader can do the same arithmetic.

import { BadInput, check } from "../check.ts";

type U32x4 = readonly [number, number, number, number];
type U32x2 = readonly [number, number];

const ROUNDS = 10;
// The paper's multipliers and the Weyl sequence that the key advances by (golden ratio, square root of 3 minus 1).
const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;

const U32_LIMIT = 2 ** 32;
const U64_LIMIT = 1n << 64n;

/** The high 32 bits of a · b, from 16-bit halves; no sum below reaches 2^32. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return aHigh * bHigh + (middle >>> 16) + (carry >>> 16);
}

/** Four random words from four counter words and two key words, all u32. */
export function philox4x32(counter: U32x4, key: U32x2): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0);
    const low0 = Math.imul(MULTIPLIER_0, c0) >>> 0;
    const high1 = multiplyHigh(MULTIPLIER_1, c2);
    const low1 = Math.imul(MULTIPLIER_1, c2) >>> 0;
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0;
    k0 = (k0 + WEYL_0) >>> 0;
    k1 = (k1 + WEYL_1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/**
 * The low and high 32 bits of a seed, an integer from 0 to 2^64 - 1. Throws BadInput on anything else, also on a
 * number above 2^53 - 1, which may have lost digits already: give a bigint.
 */
export function seedWords(seed: number | bigint): [low: number, high: number] {
  const whole = typeof seed === "bigint" || Number.isSafeInteger(seed);
  if (!whole || seed < 0 || BigInt(seed) >= U64_LIMIT) {
    throw new BadInput(
      `seed is ${String(seed)}; it must be an integer from 0 to 2^64 - 1 (above 2^53 - 1: as a bigint)`,
    );
  }
  const bits = BigInt(seed);
  return [Number(bits & 0xffffffffn), Number(bits >> 32n)];
}

/**
 * A number in [0, 1) with 24 bits, so that float32 holds it exactly: the same for the same arguments everywhere.
 * Counter words are (step, sequence, 0, 0), the key is the seed's two words, the number is the first word's top bits.
 *
 * @param seed an integer from 0 to 2^64 - 1, else BadInput
 * @param sequence u32, which sequence of a request list
 * @param step u32, which of its generated tokens, from 0
 */
export function uniform(seed: number | bigint, sequence: number, step: number): number {
  check(isU32(sequence), () => `uniform: sequence is ${sequence}; it must be an integer from 0 to 2^32 - 1`);
  check(isU32(step), () => `uniform: step is ${step}; it must be an integer from 0 to 2^32 - 1`);
  const [word] = philox4x32([step, sequence, 0, 0], seedWords(seed));
  return (word >>> 8) / 2 ** 24;
}

function isU32(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value < U32_LIMIT;
}
