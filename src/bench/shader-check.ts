import { philox4x32 } from "../generate/random.ts";
import type { Values } from "./shader-inputs.ts";

/** How far a result may be from the float64 reference. */
export interface Tolerance {
  /** Bound for Σ(a−b)²/Σa², a being the reference. */
  readonly nmse: number;
  /** Bound for the largest absolute error. */
  readonly maxAbs: number;
}

/** For inputs of magnitude 1, by op; with halves as storage the reference starts from the halves. */
const F32 = {
  copy: { nmse: 0, maxAbs: 0 },
  add: { nmse: 1e-14, maxAbs: 1e-6 },
  layernorm: { nmse: 1e-11, maxAbs: 5e-5 },
  gelu: { nmse: 1e-11, maxAbs: 1e-5 },
  softmax: { nmse: 1e-10, maxAbs: 1e-6 },
  /** For K = 768: the error of a sum of K terms grows with √K. */
  product: { nmse: 1e-10, maxAbs: 1e-4 },
  attention: { nmse: 1e-9, maxAbs: 1e-4 },
} as const;

/** The bounds of an op on floats; of a product by its depth K. */
export function toleranceOf(
  op: keyof typeof F32,
  dtype: "f32" | "f16" | "i8" = "f32",
  depth = 768,
): Tolerance {
  const { nmse, maxAbs } = F32[op];
  const halves = op === "attention" ? 2e-6 : 1e-6;
  return {
    nmse: dtype === "f16" ? halves : nmse,
    maxAbs: op === "product" ? maxAbs * Math.sqrt(depth / 768) : maxAbs,
  };
}

/**
 * Floats of magnitude 1 stored as halves: WGSL leaves open to which of its two neighbours a float goes, and below 1 they
 * lie up to 2^-11 apart.
 */
export const STORED_AS_HALF: Tolerance = { nmse: 1e-6, maxAbs: 2 ** -11 };

/** What a check found. A null error is one that is not finite. */
export interface CheckResult {
  readonly ok: boolean;
  /** Elements of the result; all must be finite. */
  readonly elements: number;
  /** How many of them were compared with the reference. */
  readonly compared: number;
  readonly maxAbs: number | null;
  readonly maxAbsAllowed: number;
  readonly nmse: number | null;
  readonly nmseAllowed: number;
  /** What is wrong, with the worst element; null when all is well. */
  readonly failure: string | null;
}

/** Random elements that are compared, beside the corners. The reference of one element takes up to 130,000 operations. */
const SAMPLES = 128;

/** The corners of a result of `rows` rows, and SAMPLES others that a seed chooses; all elements where there are few. */
export function sampledIndices(elements: number, rows: number): number[] {
  if (elements <= SAMPLES) return Array.from({ length: elements }, (_, i) => i);
  const cols = elements / rows;
  const indices = new Set([0, cols - 1, elements - cols, elements - 1]);
  for (let i = 0; i < SAMPLES; i++) indices.add(philox4x32([i, 0, 0, 0], [elements, 0])[0] % elements);
  return [...indices].sort((a, b) => a - b);
}

/** Everything finite, and a sample of the elements within the tolerance. */
export function checkResult(
  actual: ArrayLike<number>,
  rows: number,
  expected: Values,
  tolerance: Tolerance,
): CheckResult {
  const indices = sampledIndices(actual.length, rows);
  let errors = 0;
  let energy = 0;
  let worst = { index: 0, error: -1 };
  for (const index of indices) {
    const wanted = expected(index);
    const error = Math.abs(actual[index]! - wanted);
    errors += error ** 2;
    energy += wanted ** 2;
    // NaN is worse than anything, and stays so.
    if (!(error <= worst.error) && !Number.isNaN(worst.error)) worst = { index, error };
  }
  const nmse = errors === 0 ? 0 : errors / energy;
  const finite = (value: number) => (Number.isFinite(value) ? value : null);
  const found = { maxAbs: finite(worst.error), nmse: finite(nmse) };
  const failure = whatIsWrong();
  return {
    ok: failure === null,
    elements: actual.length,
    compared: indices.length,
    maxAbs: found.maxAbs,
    maxAbsAllowed: tolerance.maxAbs,
    nmse: found.nmse,
    nmseAllowed: tolerance.nmse,
    failure,
  };

  function whatIsWrong(): string | null {
    for (let i = 0; i < actual.length; i++)
      if (!Number.isFinite(actual[i])) return `element ${i} of ${actual.length} is ${actual[i]}`;
    if (worst.error <= tolerance.maxAbs && nmse <= tolerance.nmse) return null;
    const { index, error } = worst;
    return (
      `element ${index} of ${actual.length} is ${actual[index]}, wanted ${expected(index)}: ` +
      `error ${error.toExponential(1)}, allowed ${tolerance.maxAbs.toExponential(1)}; ` +
      `NMSE ${nmse.toExponential(1)}, allowed ${tolerance.nmse.toExponential(1)}`
    );
  }
}
