import { describe, expect, test } from "vitest";
import { halfBits, halfToFloat, narrowToHalf, widenBfloat, widenHalf } from "../src/half.ts";

const INFINITY_BITS = 0x7c00;
const LARGEST_BITS = 0x7bff;
const SIGN = 0x8000;
const { POSITIVE_INFINITY, NEGATIVE_INFINITY } = Number;

/** IEEE 754: (-1)^sign · 2^(exponent - bias) · fraction, from the text of the bits. */
function fromFields(bits: number, exponentBits: number, fractionBits: number): number {
  const text = bits.toString(2).padStart(1 + exponentBits + fractionBits, "0");
  const sign = text[0] === "1" ? -1 : 1;
  const exponent = Number.parseInt(text.slice(1, 1 + exponentBits), 2);
  const fraction = Number.parseInt(text.slice(1 + exponentBits), 2) / 2 ** fractionBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  if (exponent === 2 ** exponentBits - 1) return fraction === 0 ? sign * POSITIVE_INFINITY : Number.NaN;
  return exponent === 0 ? sign * 2 ** (1 - bias) * fraction : sign * 2 ** (exponent - bias) * (1 + fraction);
}

const isNanBits = (bits: number) => (bits & 0x7fff) > INFINITY_BITS;

// Failures are collected, since 65,536 calls of expect take seconds.
const everyHalf = Uint16Array.from({ length: 65536 }, (_, bits) => bits);

/** The float next to `value`, away from zero or towards it. */
function neighbour(value: number, away: 1 | -1): number {
  const word = new Uint32Array(Float32Array.of(value).buffer);
  word[0]! += away;
  return new Float32Array(word.buffer)[0]!;
}

describe("halves", () => {
  test("each of the 65,536 has its value", () => {
    const wrong = everyHalf.filter((bits) => !Object.is(halfToFloat(bits), fromFields(bits, 5, 10)));
    expect([...wrong]).toEqual([]);
  });

  test("each comes back from its value as the same bits, NaN as some NaN", () => {
    const wrong = everyHalf.filter((bits) => {
      const back = halfBits(halfToFloat(bits));
      return isNanBits(bits) ? !isNanBits(back) : back !== bits;
    });
    expect([...wrong]).toEqual([]);
  });

  test("widening and narrowing whole arrays is the same, element by element", () => {
    const floats = widenHalf(everyHalf);
    const narrowed = narrowToHalf(floats);
    const wrong = everyHalf.filter(
      (bits) => !Object.is(floats[bits], halfToFloat(bits)) || narrowed[bits] !== halfBits(floats[bits]!),
    );
    expect([...wrong]).toEqual([]);
  });

  test("between any two neighbours: the nearer one, and on a tie the even one", () => {
    const wrong: number[] = [];
    for (let bits = 0; bits < LARGEST_BITS; bits++) {
      const middle = (halfToFloat(bits) + halfToFloat(bits + 1)) / 2;
      const even = bits % 2 === 0 ? bits : bits + 1;
      for (const [value, nearest] of [
        [middle, even],
        [neighbour(middle, -1), bits],
        [neighbour(middle, 1), bits + 1],
      ] as const)
        if (halfBits(value) !== nearest || halfBits(-value) !== (SIGN | nearest)) wrong.push(value);
    }
    expect(wrong).toEqual([]);
  });

  test.each([
    [65504, LARGEST_BITS],
    [65519.99609375, LARGEST_BITS], // the last float that is nearer to 65,504 than to 65,536
    [65520, INFINITY_BITS], // a tie, and 65,504 is odd
    [65536, INFINITY_BITS],
    [3.4028234663852886e38, INFINITY_BITS],
    [POSITIVE_INFINITY, INFINITY_BITS],
  ])("past the largest: %d has the bits %i", (value, bits) => {
    expect(halfBits(value)).toBe(bits);
    expect(halfBits(-value)).toBe(SIGN | bits);
  });

  test.each([
    [0, 0],
    [2 ** -14, 0x0400], // the smallest normal half
    [2 ** -14 - 2 ** -24, 0x03ff], // the largest subnormal one
    [2 ** -24, 1], // the smallest
    [2 ** -25, 0], // a tie between 0 and the smallest: to the even one
    [1.5 * 2 ** -25, 1],
    [3 * 2 ** -25, 2], // a tie between 1 and 2
    [2 ** -126, 0],
    [2 ** -149, 0],
  ])("near zero: %d has the bits %i", (value, bits) => {
    expect(halfBits(value)).toBe(bits);
    expect(halfBits(-value)).toBe(SIGN | bits);
  });

  test("zero keeps its sign, both ways", () => {
    expect(halfBits(-0)).toBe(SIGN);
    expect(Object.is(halfToFloat(SIGN), -0)).toBe(true);
    expect(Object.is(widenHalf(Uint16Array.of(SIGN))[0], -0)).toBe(true);
  });

  test("NaN is NaN, never infinity", () => {
    const signalling = new Float32Array(Uint32Array.of(0x7f800001).buffer)[0]!;
    for (const nan of [Number.NaN, signalling]) expect(isNanBits(halfBits(nan))).toBe(true);
    expect(halfToFloat(0x7c01)).toBeNaN();
    expect(halfToFloat(INFINITY_BITS)).toBe(POSITIVE_INFINITY);
    expect(halfToFloat(SIGN | INFINITY_BITS)).toBe(NEGATIVE_INFINITY);
  });
});

test("each of the 65,536 bfloat16 has its value", () => {
  const floats = widenBfloat(everyHalf);
  expect(floats).toHaveLength(65536);
  const wrong = everyHalf.filter((bits) => !Object.is(floats[bits], fromFields(bits, 8, 7)));
  expect([...wrong]).toEqual([]);
});

test("empty arrays stay empty", () => {
  expect(widenHalf(new Uint16Array())).toHaveLength(0);
  expect(widenBfloat(new Uint16Array())).toHaveLength(0);
  expect(narrowToHalf(new Float32Array())).toHaveLength(0);
});
