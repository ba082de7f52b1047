import { narrowToHalf, widenHalf } from "../src/half.ts";
import type { Dtype } from "../src/tensor.ts";

/** `length` floats, uniform in (-1, 1), the same for the same seed on every machine (Marsaglia's xorshift32). */
export function randomFloats(seed: number, length: number): Float32Array {
  const next = randomBits(seed);
  return Float32Array.from({ length }, () => (next() - 2 ** 31 + 0.5) / 2 ** 31);
}

/** The integers 0 … length - 1 in an order that the seed decides (Fisher and Yates). */
export function shuffled(seed: number, length: number): number[] {
  const next = randomBits(seed);
  const order = Array.from({ length }, (_, i) => i);
  for (let i = length - 1; i > 0; i--) {
    const j = next() % (i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

function randomBits(seed: number): () => number {
  let state = Math.imul(seed + 1, 0x9e3779b1) | 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  // Nearby seeds begin alike; a few rounds part them.
  for (let i = 0; i < 8; i++) next();
  return next;
}

/** The kinds of values that numerics.md wants every op to see: rows · cols floats of each. */
export const VALUES = {
  "uniform(-1, 1)": (rows: number, cols: number, seed: number) => randomFloats(seed, rows * cols),
  "rows of equal values": (rows: number, cols: number) =>
    Float32Array.from({ length: rows * cols }, (_, i) => 0.375 * (1 + Math.floor(i / cols))),
  "±1e4": (rows: number, cols: number, seed: number) =>
    randomFloats(seed, rows * cols).map((x) => Math.sign(x) * 1e4),
  "one outlier of 300": (rows: number, cols: number, seed: number) => {
    const values = randomFloats(seed, rows * cols);
    values[Math.floor(values.length / 2)] = 300;
    return values;
  },
} as const;

export type ValuesName = keyof typeof VALUES;
export const VALUES_NAMES = Object.keys(VALUES) as ValuesName[];

/** What a tensor of `dtype` holds after these values were stored in it. */
export function stored(values: Float32Array, dtype: Dtype): Float32Array {
  return dtype === "f16" ? widenHalf(narrowToHalf(values)) : values;
}
