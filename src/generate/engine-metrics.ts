import type { Distribution } from "./engine-types.ts";

/** Values from a microsecond to 10,000 seconds have buckets of their own; what lies outside is in the first or the last. */
const LOWEST = 1e-6;
const HIGHEST = 1e4;
/** Upper over lower end of a bucket. Its geometric middle is within 0.5 % of everything in it. */
const RATIO = 1.01;
const LOG_RATIO = Math.log(RATIO);
const BUCKETS = Math.ceil(Math.log(HIGHEST / LOWEST) / LOG_RATIO) + 1;

/**
 * A distribution of times in seconds. An engine may run for months, so it keeps counts in buckets and not the values: 19 kB
 * whatever comes. Mean, smallest and largest are exact; percentiles are within 0.5 %.
 */
export class TimeDistribution {
  readonly #counts = new Float64Array(BUCKETS);
  #count = 0;
  #sum = 0;
  #min = Infinity;
  #max = -Infinity;

  add(seconds: number): void {
    const bucket = Math.floor(Math.log(seconds / LOWEST) / LOG_RATIO);
    this.#counts[Math.min(BUCKETS - 1, Math.max(0, bucket))]! += 1;
    this.#count++;
    this.#sum += seconds;
    if (seconds < this.#min) this.#min = seconds;
    if (seconds > this.#max) this.#max = seconds;
  }

  /** Undefined before there is a value. */
  summary(): Distribution | undefined {
    if (this.#count === 0) return undefined;
    const [median, p90, p99] = this.#percentiles([50, 90, 99]);
    return { count: this.#count, mean: this.#sum / this.#count, median: median!, p90: p90!, p99: p99! };
  }

  /** The smallest value that p percent of the values do not exceed (nearest rank), for each p, in ascending order. */
  #percentiles(ps: readonly number[]): number[] {
    let bucket = -1;
    let below = 0;
    return ps.map((p) => {
      const rank = Math.ceil((p / 100) * this.#count);
      while (below < rank) below += this.#counts[++bucket]!;
      const middle = LOWEST * RATIO ** (bucket + 0.5);
      return Math.min(this.#max, Math.max(this.#min, middle));
    });
  }
}

/** The latencies of an engine: of its requests until their first token, and of all sequences from token to token. */
export class EngineLatencies {
  readonly #firstToken = new TimeDistribution();
  readonly #interToken = new TimeDistribution();

  /** A request was submitted and has its first token now. */
  first(submitted: number, now: number): void {
    this.#firstToken.add(now - submitted);
  }

  /** A sequence had a token before and has another one now. */
  next(before: number, now: number): void {
    this.#interToken.add(now - before);
  }

  summary(): { timeToFirstToken: Distribution | undefined; interTokenTime: Distribution | undefined } {
    return { timeToFirstToken: this.#firstToken.summary(), interTokenTime: this.#interToken.summary() };
  }
}
