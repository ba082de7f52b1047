/**
 * Random operations that the model-based tests of this folder run, all together. A long run:
 *   QUIRE_OPERATIONS=1000000 npx vitest run test/kv/page- test/kv/prefix test/kv/strip
 */
const TOTAL = Number(process.env.QUIRE_OPERATIONS ?? 60_000);

const SHARES = {
  "page-allocator": 0.2,
  "page-table": 0.2,
  "prefix-cache": 0.1,
  "page-space": 0.4,
  "strip-space": 0.1,
} as const;

/** How many runs of `perRun` operations the test of a module makes. */
export function runsOf(module: keyof typeof SHARES, perRun: number): number {
  return Math.ceil((TOTAL * SHARES[module]) / perRun);
}

/** Milliseconds that such a test may take: a long run is slow on a busy machine. */
export const TIMEOUT = Math.max(120_000, 2 * TOTAL);
