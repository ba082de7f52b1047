/** Plain statistics of a list of numbers. Each throws on an empty list, which has none of them. */
import { check } from "../check.ts";
import { sum } from "../kv/cache.ts";

export interface Statistics {
  count: number;
  mean: number;
  p50: number;
  p95: number;
  min: number;
  max: number;
  /** Standard deviation of the sample, with n - 1; 0 for a single value. */
  std: number;
}

/** Arithmetic mean. */
export function mean(values: readonly number[]): number {
  check(values.length > 0, "mean: no values; it needs at least one");
  return sum(values) / values.length;
}

/** Standard deviation of a sample, sqrt(sum (x - mean)^2 / (n - 1)); 0 for a single value. */
export function standardDeviation(values: readonly number[]): number {
  const centre = mean(values);
  const squares = sum(values.map((value) => (value - centre) ** 2));
  return values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : 0;
}

/**
 * The p-th percentile, p from 0 to 100, by linear interpolation between the two closest ranks: the value at rank
 * p / 100 · (n - 1) of the sorted list, counted from 0 (Hyndman and Fan's type 7, the default of NumPy).
 */
export function percentile(values: readonly number[], p: number): number {
  return percentiles(values, [p])[0]!;
}

/** Several percentiles of one list, which is sorted once. */
export function percentiles(values: readonly number[], ps: readonly number[]): number[] {
  check(values.length > 0, "percentile: no values; it needs at least one");
  const sorted = Float64Array.from(values).sort();
  return ps.map((p) => {
    check(p >= 0 && p <= 100, () => `percentile: p is ${p}; it must be from 0 to 100`);
    const rank = (p / 100) * (sorted.length - 1);
    const below = Math.floor(rank);
    const low = sorted[below]!;
    const high = sorted[Math.min(below + 1, sorted.length - 1)]!;
    return low + (high - low) * (rank - below);
  });
}

/** The middle value: `percentile(values, 50)`. */
export function median(values: readonly number[]): number {
  return percentile(values, 50);
}

/** All of them at once. */
export function statistics(values: readonly number[]): Statistics {
  return {
    count: values.length,
    mean: mean(values),
    p50: median(values),
    p95: percentile(values, 95),
    min: percentile(values, 0),
    max: percentile(values, 100),
    std: standardDeviation(values),
  };
}
