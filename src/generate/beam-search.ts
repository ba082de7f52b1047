/** Where a beam of the next step comes from. */
export interface BeamChoice {
  /** Which of the beams before. */
  readonly parent: number;
  readonly token: number;
}

/** A finished hypothesis. */
export interface BeamResult {
  /** Generated ids; an eos token that ended it is the last one. */
  readonly tokens: readonly number[];
  /** Sum of log-probabilities over length ** lengthPenalty. */
  readonly score: number;
  readonly endedByEos: boolean;
}

export interface BeamSearchOptions {
  readonly beams: number;
  /** A hypothesis of so many tokens ends: what maxNewTokens and the context leave. */
  readonly maxLength: number;
  readonly eosIds: ReadonlySet<number>;
  /** Default 1: scores are means. */
  readonly lengthPenalty?: number;
}

interface Beam {
  readonly tokens: readonly number[];
  readonly score: number;
}

/**
 * Beam search as Hugging Face transformers 5 does it (`GenerationMixin._beam_search`, early_stopping false, no sampling),
 * for one prompt, in float64; of equal scores the one of the earlier beam, then of the lower id, comes first.
 *
 * The first step has one beam, the prompt. Each step takes the 2 · beams best continuations (more if there are several eos
 * ids). Those of the first `beams` that end become hypotheses, of which the best `beams` are kept; the first `beams` that
 * do not end go on. It is over when no hypothesis is missing and the best beam, scored at its length now, is not better than the worst of them.
 */
export class BeamSearch {
  readonly beams: number;
  readonly #maxLength: number;
  readonly #eosIds: ReadonlySet<number>;
  readonly #lengthPenalty: number;
  #running: readonly Beam[] = [{ tokens: [], score: 0 }];
  #results: BeamResult[] = [];
  #isDone = false;

  constructor({ beams, maxLength, eosIds, lengthPenalty = 1 }: BeamSearchOptions) {
    this.beams = beams;
    this.#maxLength = maxLength;
    this.#eosIds = eosIds;
    this.#lengthPenalty = lengthPenalty;
  }

  /** Generated ids of the beams that go on, best first; none when the search is done. */
  get running(): readonly (readonly number[])[] {
    return this.#running.map(({ tokens }) => tokens);
  }

  get isDone(): boolean {
    return this.#isDone;
  }

  /** Finished hypotheses, best first; fewer than `beams` only before the end, or if the vocabulary had no more. */
  get results(): readonly BeamResult[] {
    return this.#results;
  }

  /**
   * Take the logits [V] after the last token of each running beam. Returns what the beams of the next step are, best first, none
   * when the search is done; or undefined if a row has NaN, Infinity or nothing finite, and nothing can be chosen.
   */
  advance(rows: readonly Float32Array[]): BeamChoice[] | undefined {
    const candidates = this.#candidates(rows);
    if (candidates === undefined) return undefined;
    const length = this.#running[0]!.tokens.length + 1;
    const divisor = length ** this.#lengthPenalty;
    const next: Beam[] = [];
    const choices: BeamChoice[] = [];
    candidates.forEach(({ parent, token, score }, i) => {
      const tokens = [...this.#running[parent]!.tokens, token];
      const endedByEos = this.#eosIds.has(token);
      if (endedByEos || length >= this.#maxLength) {
        // What comes after the first `beams` is there only so that enough beams can go on.
        if (i < this.beams) this.#results.push({ tokens, score: score / divisor, endedByEos });
      } else if (next.length < this.beams) {
        next.push({ tokens, score });
        choices.push({ parent, token });
      }
    });
    // The sort is stable: of equal scores the hypothesis found first stays first.
    this.#results = this.#results.sort((a, b) => b.score - a.score).slice(0, this.beams);
    const isFull = this.#results.length === this.beams;
    const canImprove = next.length > 0 && (!isFull || next[0]!.score / divisor > this.#results.at(-1)!.score);
    this.#isDone = !canImprove;
    this.#running = canImprove ? next : [];
    return canImprove ? choices : [];
  }

  /** The best continuations of all beams, best first; undefined if a row cannot be used. */
  #candidates(rows: readonly Float32Array[]): Candidate[] | undefined {
    const wanted = Math.max(2, 1 + this.#eosIds.size) * this.beams;
    const best: Candidate[] = [];
    for (let parent = 0; parent < rows.length; parent++) {
      const row = rows[parent]!;
      const normaliser = logSumExp(row);
      if (!Number.isFinite(normaliser)) return undefined;
      const base = this.#running[parent]!.score - normaliser;
      let floor = best.length < wanted ? -Infinity : best.at(-1)!.score;
      for (let token = 0; token < row.length; token++) {
        const score = base + row[token]!;
        if (!(score > floor)) continue;
        let at = best.length;
        while (at > 0 && best[at - 1]!.score < score) at--;
        best.splice(at, 0, { parent, token, score });
        if (best.length > wanted) best.pop();
        if (best.length === wanted) floor = best[wanted - 1]!.score;
      }
    }
    return best;
  }
}

interface Candidate extends BeamChoice {
  readonly score: number;
}

/** log Σ exp(row), in float64; not finite if an element is NaN or Infinity, or if none is finite. */
function logSumExp(row: Float32Array): number {
  let max = -Infinity;
  for (const value of row) if (value > max) max = value;
  let sum = 0;
  for (const value of row) sum += Math.exp(value - max);
  return max + Math.log(sum);
}
