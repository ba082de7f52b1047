import { expect } from "vitest";

/** How far a result may be from the float64 reference. */
export interface Tolerance {
  /** Bound for Σ(a−b)²/Σa², a being the reference. */
  readonly nmse: number;
  /** Bound for the largest absolute error, for results of magnitude 1. */
  readonly maxAbs: number;
}

const exact: Tolerance = { nmse: 0, maxAbs: 0 };
const all = (f32: Tolerance, f16Nmse: number) => ({
  f32,
  f16: { nmse: f16Nmse, maxAbs: f32.maxAbs },
  // The reference starts from q / 127 · scale, so nothing but f32 arithmetic is left to allow for.
  i8: f32,
});

/**
 * The table of the house document numerics.md: by op, then by the storage of weights or of keys and values.
 *
 * The reference starts from what is stored and arithmetic is f32 whatever the storage, so the absolute bound of f32 holds
 * for f16 too; it is what refuses a sum kept in halves.
 */
export const TOLERANCE = {
  copy: { f32: exact, f16: exact },
  add: all({ nmse: 1e-14, maxAbs: 1e-6 }, 1e-6),
  layernorm: all({ nmse: 1e-11, maxAbs: 5e-5 }, 1e-6),
  gelu: all({ nmse: 1e-11, maxAbs: 1e-5 }, 1e-6),
  softmax: all({ nmse: 1e-10, maxAbs: 1e-6 }, 1e-6),
  /** For K = 768; see matmulTolerance. */
  matmul: all({ nmse: 1e-10, maxAbs: 1e-4 }, 1e-6),
  attention: all({ nmse: 1e-9, maxAbs: 1e-4 }, 2e-6),
} as const;

/** The bound for a product with inputs of magnitude 1: errors of a sum of K terms grow with √K. */
export function matmulTolerance(depth: number, dtype: "f32" | "f16" | "i8"): Tolerance {
  const { nmse, maxAbs } = TOLERANCE.matmul[dtype];
  return { nmse, maxAbs: maxAbs * Math.sqrt(depth / 768) };
}

/** The same tolerance for results whose largest magnitude is not 1. */
export function scaledTo(expected: ArrayLike<number>, { nmse, maxAbs }: Tolerance): Tolerance {
  return { nmse, maxAbs: maxAbs * Math.max(1, largestMagnitude(expected)) };
}

export function largestMagnitude(values: ArrayLike<number>): number {
  let largest = 0;
  for (let i = 0; i < values.length; i++) largest = Math.max(largest, Math.abs(values[i]!));
  return largest;
}

/** Normalised mean square error, Σ(a−b)²/Σa². A reference of nothing but zeros allows no error: 0 or Infinity. */
export function nmse(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let errors = 0;
  let energy = 0;
  for (let i = 0; i < expected.length; i++) {
    errors += (expected[i]! - actual[i]!) ** 2;
    energy += expected[i]! ** 2;
  }
  return errors === 0 ? 0 : errors / energy;
}

/** The element with the largest absolute error, and that error. NaN counts as the largest of all. */
export function worst(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
): { index: number; error: number } {
  let index = 0;
  let error = 0;
  for (let i = 0; i < expected.length; i++) {
    const here = Math.abs(expected[i]! - actual[i]!);
    if (!(here <= error)) [index, error] = [i, here];
    if (Number.isNaN(here)) break;
  }
  return { index, error };
}

/** Everything finite, and NMSE and the largest absolute error within the tolerance. */
export function expectClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  { nmse: nmseBound, maxAbs }: Tolerance,
): void {
  expectFinite(actual, expected);
  const { index, error } = worst(actual, expected);
  expect(error, `element ${index} is ${actual[index]}, wanted ${expected[index]}`).toBeLessThanOrEqual(
    maxAbs,
  );
  expect(nmse(actual, expected), "NMSE").toBeLessThanOrEqual(nmseBound);
}

/**
 * Every element of a sum within terms · 2⁻²⁴ · Σ|terms|, the bound of a sequential f32 sum: for values of any size.
 * `magnitudes` are the Σ|terms| of the reference.
 */
export function expectWithinSumBound(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  magnitudes: ArrayLike<number>,
  terms: number,
): void {
  expectFinite(actual, expected);
  for (let i = 0; i < expected.length; i++) {
    const bound = terms * 2 ** -24 * magnitudes[i]!;
    if (!(Math.abs(actual[i]! - expected[i]!) <= bound))
      expect.fail(`element ${i} is ${actual[i]}, wanted ${expected[i]} ± ${bound}`);
  }
}

function expectFinite(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < actual.length; i++)
    if (!Number.isFinite(actual[i])) expect.fail(`element ${i} is ${actual[i]}, wanted ${expected[i]}`);
}
