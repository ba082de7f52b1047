import { BadInput, check } from "../check.ts";
import { keepNucleus, kthLargest } from "./logit-filters.ts";
import { seedWords } from "./random.ts";

/** How the next token is chosen. What is undefined is off. The filters apply in the order of the fields below. */
export interface SamplingOptions {
  /** Divides the logits of tokens seen before if they are positive, else multiplies them. Above 0; 1 is off. */
  repetitionPenalty?: number;
  /** Divides the logits. At least 0; 0 is greedy: the most likely token, after the penalty, whatever the filters. */
  temperature: number;
  /** Keep the k most likely tokens, and those equal to the k-th. An integer of at least 0; 0 is off. */
  topK?: number;
  /** Keep the most likely tokens that together have this probability. In (0, 1]; 1 is off. */
  topP?: number;
  /** Keep tokens at least this likely in proportion to the most likely one. In [0, 1]; 0 is off. */
  minP?: number;
  /** Picks the random numbers. An integer from 0 to 2^64 - 1; above 2^53 - 1 as a bigint. */
  seed: number | bigint;
}

/** Throws BadInput that names the first field out of range. */
export function validateSampling(options: SamplingOptions): void {
  const { temperature, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1, seed } = options;
  want("temperature", temperature, temperature >= 0, "a finite number of at least 0 (0 is greedy)");
  want("topK", topK, topK >= 0 && Number.isInteger(topK), "an integer of at least 0 (0 is off)");
  want("topP", topP, topP > 0 && topP <= 1, "a number above 0 and up to 1 (1 is off)");
  want("minP", minP, minP >= 0 && minP <= 1, "a number from 0 to 1 (0 is off)");
  want("repetitionPenalty", repetitionPenalty, repetitionPenalty > 0, "a finite number above 0 (1 is off)");
  seedWords(seed);
}

function want(field: string, value: number, inRange: boolean, range: string): void {
  if (!Number.isFinite(value) || !inRange) {
    throw new BadInput(`${field} is ${String(value)}; it must be ${range}`);
  }
}

/**
 * Probability of each token [V] after penalty, temperature, top-k, top-p and min-p, as Hugging Face's logits
 * processors in that order give it, in float64.
 *
 * @param logits [V] f32; -Infinity rules a token out; NaN and Infinity are refused
 * @param history ids of the prompt and of the tokens generated so far, for the penalty
 */
export function probabilities(
  logits: Float32Array,
  history: readonly number[],
  options: SamplingOptions,
): Float64Array {
  validateSampling(options);
  const { temperature, topK = 0, topP = 1, minP = 0 } = options;
  const scores = penalisedScores(logits, history, options.repetitionPenalty ?? 1);
  const best = argmax(scores);
  const weights = new Float64Array(scores.length);
  if (temperature === 0) {
    weights[best] = 1;
    return weights;
  }

  // A temperature above 0 keeps the order, so top-k may look at the scores before it.
  const kth = topK > 0 && topK < scores.length ? kthLargest(scores.slice(), topK) : -Infinity;
  // Less the maximum, so that no temperature, however small, overflows.
  const max = scores[best]!;
  const logWeights = scores;
  for (let id = 0; id < weights.length; id++) {
    logWeights[id] = scores[id]! >= kth ? (scores[id]! - max) / temperature : -Infinity;
    weights[id] = Math.exp(logWeights[id]!);
  }

  if (topP < 1) keepNucleus(logWeights, weights, topP);

  // The best token's weight is 1, so a weight is the ratio that min-p asks for.
  let total = 0;
  for (let id = 0; id < weights.length; id++) {
    if (weights[id]! < minP) weights[id] = 0;
    total += weights[id]!;
  }
  for (let id = 0; id < weights.length; id++) weights[id]! /= total;
  return weights;
}

/**
 * The next token id: inverse of the cumulative distribution over ascending ids at u, greedy at temperature 0 (of
 * equal logits the lowest id). For the rest see `probabilities`.
 *
 * @param u in [0, 1), from `uniform`
 */
export function sample(
  logits: Float32Array,
  history: readonly number[],
  options: SamplingOptions,
  u: number,
): number {
  check(u >= 0 && u < 1, () => `sample: u is ${u}; it must be in [0, 1)`);
  if (options.temperature === 0) {
    validateSampling(options);
    return argmax(penalisedScores(logits, history, options.repetitionPenalty ?? 1));
  }
  const p = probabilities(logits, history, options);
  let token = 0;
  let sum = 0;
  for (let id = 0; id < p.length; id++) {
    if (p[id] === 0) continue;
    token = id;
    sum += p[id]!;
    if (sum > u) break;
  }
  // If rounding leaves the whole sum at or below u, the last token with a probability is the answer.
  return token;
}

/** Logits [V] in float64, those of `history` penalised once each (Keskar et al. 2019, "CTRL", section 4.1). */
function penalisedScores(logits: Float32Array, history: readonly number[], penalty: number): Float64Array {
  const scores = new Float64Array(logits);
  if (penalty === 1) return scores;
  for (const id of history) {
    check(
      Number.isInteger(id) && id >= 0 && id < logits.length,
      () => `sampler: token ${id} of the history is not in the vocabulary of ${logits.length}`,
    );
    const logit = logits[id]!;
    scores[id] = logit < 0 ? logit * penalty : logit / penalty;
  }
  return scores;
}

/** The lowest id of the highest score. Throws if a score is NaN or Infinity, or if none is finite. */
function argmax(scores: Float64Array): number {
  let best = 0;
  for (let id = 0; id < scores.length; id++) {
    const score = scores[id]!;
    // Tested before `check` is called: 50,000 closures a token would cost more than the search.
    if (!(score < Infinity))
      check(false, `sampler: logit ${id} of ${scores.length} is ${score}; it must be a number`);
    if (score > scores[best]!) best = id;
  }
  check(
    scores.length > 0 && scores[best]! > -Infinity,
    () => `sampler: none of ${scores.length} logits is finite; there is no token to choose`,
  );
  return best;
}
