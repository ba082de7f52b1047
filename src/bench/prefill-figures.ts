/** From measured prefills to figures: nothing here measures, and nothing rounds. */
import type { ByPurpose } from "../gpu/memory.ts";
import type { ModelConfig } from "../model/config.ts";
import { mean, median, percentile } from "./measure.ts";
import type { PeerRow, PrefillCheck, PrefillResults, PrefillRow } from "./prefill-results.ts";

/** Sequences, and tokens of each. */
export type PrefillCase = readonly [batch: number, tokens: number];

/** A case that was measured. Seconds by the wall clock. */
export interface MeasuredPrefill {
  readonly prefill: PrefillCase;
  /** Of each iteration: until the GPU is done, and the part in which the host recorded the step. */
  readonly iterations: readonly { readonly seconds: number; readonly hostSeconds: number }[];
  readonly firstSeconds: number;
  readonly peakBytes: number;
  readonly peakByPurpose: ByPurpose;
  readonly check: PrefillCheck;
}

/**
 * Multiplications and additions of a prefill of S sequences of T tokens, each counted as one:
 *
 *   2 · S · T · parameters of the blocks' matrices     4 a block: [C, 3C], [C, C], [C, F] and [F, C]
 *   + 4 · C · L · pairs                                q · k and weight · v of S · T (T + 1) / 2 pairs of positions
 *   + 2 · S · C · V                                    the head, for the last token of each sequence
 *
 * Biases, norms, GELU, softmax, embeddings and the masked half of attention do not count, whether a kernel computes them or not.
 */
export function prefillFlops(
  { layers: L, channels: C, innerChannels: F, vocabSize: V }: ModelConfig,
  [S, T]: PrefillCase,
): number {
  const matrices = L * (4 * C * C + 2 * C * F);
  const pairs = (S * T * (T + 1)) / 2;
  return 2 * S * T * matrices + 4 * C * L * pairs + 2 * S * C * V;
}

/** One case as a row of the results, beside the peers that did the same. Throws when it has no iteration. */
export function prefillRow(
  measured: MeasuredPrefill,
  config: ModelConfig,
  peers: readonly PeerRow[] = [],
): PrefillRow {
  const { prefill, iterations, firstSeconds, peakBytes, peakByPurpose, check } = measured;
  const [batch, length] = prefill;
  const tokens = batch * length;
  const flops = prefillFlops(config, prefill);
  const times = iterations.map((i) => i.seconds);
  const seconds = median(times);
  const same = peers.filter((p) => p.prefill[0] === batch && p.prefill[1] === length);
  return {
    prefill: [batch, length],
    ms: seconds * 1e3,
    ms_mean: mean(times) * 1e3,
    ms_p90: percentile(times, 90) * 1e3,
    ms_of_iterations: times.map((s) => s * 1e3),
    ms_first: firstSeconds * 1e3,
    ms_host: median(iterations.map((i) => i.hostSeconds)) * 1e3,
    tokens_per_s: tokens / seconds,
    us_per_token: (seconds / tokens) * 1e6,
    gflop: flops / 1e9,
    tflops_per_s: flops / seconds / 1e12,
    peak_bytes: peakBytes,
    peak_by_purpose: peakByPurpose,
    check,
    peers: same.map(({ peer, dtype, ms, tokens_per_s }) => ({
      peer,
      dtype,
      ms,
      tokens_per_s,
      ratio: tokens / seconds / tokens_per_s,
    })),
  };
}

/** The short prompt and the full batch of `first_token_ratio`. */
const SHORT: PrefillCase = [1, 512];
const FULL: PrefillCase = [8, 1024];

export function firstTokenRatio(rows: readonly PrefillRow[]): PrefillResults["first_token_ratio"] {
  const find = ([batch, tokens]: PrefillCase) =>
    rows.find((r) => r.prefill[0] === batch && r.prefill[1] === tokens);
  const [short, full] = [find(SHORT), find(FULL)];
  return short && full ? short.ms / ((full.us_per_token / 1e3) * SHORT[1]) : null;
}
