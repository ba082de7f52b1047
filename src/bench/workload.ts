// Requests for the experiments with many sequences: how long prompts and answers are, what is in them and when they come. Pure:
// the same options give the same requests everywhere, and request i depends on nothing but the seed and i.
import { BadInput } from "../check.ts";
import { philox4x32, seedWords } from "../generate/random.ts";

/** How many tokens a prompt or an answer has. */
export type Lengths =
  | { readonly kind: "fixed"; readonly tokens: number }
  /** Each integer from `from` to `to` is as likely as any other. */
  | { readonly kind: "uniform"; readonly from: number; readonly to: number }
  /**
   * The logarithm is normal with standard deviation `sigma`; `mean` is that of the lengths themselves, before they are rounded and
   * clipped to what fits. Chat logs look like this: many short, few very long.
   */
  | { readonly kind: "lognormal"; readonly mean: number; readonly sigma: number };

/** Prompts and answers as chat logs have them (ShareGPT's answers have some 200 tokens on average): the default. */
export const CHAT_LENGTHS: Lengths = { kind: "lognormal", mean: 200, sigma: 1 };

/** One request. */
export interface WorkloadRequest {
  /** Ids, at least one. */
  readonly prompt: readonly number[];
  /** New tokens, at least one; together with the prompt at most the model's context. */
  readonly outputLen: number;
  /** Seconds after the start; not before that of the request before it. */
  readonly arrival: number;
  readonly priority?: number;
  readonly salt?: string;
}

/** When requests come. */
export interface ArrivalOptions {
  /** Requests a second, above 0; Infinity: all at once. */
  readonly requestRate: number;
  /**
   * Gaps are gamma distributed with this shape, above 0: 1 is a Poisson process, below 1 is burstier, Infinity is a metronome.
   * Default 1.
   */
  readonly burstiness?: number;
  readonly seed: number | bigint;
}

export interface RandomWorkloadOptions extends ArrivalOptions {
  readonly numPrompts: number;
  readonly inputLen: Lengths;
  readonly outputLen: Lengths;
  /** Tokens that all prompts begin with, in front of the `inputLen` of their own. Default 0. */
  readonly prefixLen?: number;
  readonly vocabSize: number;
  /** The most tokens of prompt and answer together. */
  readonly contextLength: number;
}

/** The third word of the counter: what the numbers are for. 0 is the sampler's, 1 that of `bench latency`. */
const INPUT_LENGTH = 2;
const OUTPUT_LENGTH = 3;
const TOKENS = 4;
const PREFIX = 5;
const ARRIVALS = 6;

/**
 * Prompts of random ids. Log-normal lengths are clipped to what fits the context: those of the answers first where both are
 * log-normal, and a prompt always leaves room for the answer's fixed or uniform length. Throws BadInput where fixed and uniform
 * lengths do not fit.
 */
export function randomWorkload(options: RandomWorkloadOptions): WorkloadRequest[] {
  const { numPrompts, inputLen, outputLen, prefixLen = 0, vocabSize, contextLength, seed } = options;
  const mostInput = contextLength - prefixLen - surely(outputLen);
  if (surely(inputLen) > mostInput)
    throw new BadInput(
      `--input-len is ${lengthsText(inputLen)}, --output-len ${lengthsText(outputLen)} and --prefix-len ${prefixLen}; ` +
        `together at most ${contextLength}, the model's context or --max-seq-len`,
    );
  const prefix = randomIds(seed, PREFIX, 0, prefixLen, vocabSize);
  const arrivals = arrivalTimes(numPrompts, options);
  return arrivals.map((arrival, i) => {
    const own = clipped(drawLength(inputLen, randomStream(seed, INPUT_LENGTH, i)), mostInput);
    const prompt = [...prefix, ...randomIds(seed, TOKENS, i, own, vocabSize)];
    return {
      prompt,
      outputLen: drawOutputLength(outputLen, seed, i, contextLength - prompt.length),
      arrival,
    };
  });
}

/** New tokens of request i, from 1 to `most`. */
export function drawOutputLength(lengths: Lengths, seed: number | bigint, i: number, most: number): number {
  return clipped(drawLength(lengths, randomStream(seed, OUTPUT_LENGTH, i)), most);
}

/** Seconds after the start at which each of `count` requests comes; the first one comes at once. */
export function arrivalTimes(count: number, { requestRate, burstiness = 1, seed }: ArrivalOptions): number[] {
  let now = 0;
  return Array.from({ length: count }, (_, i) => {
    if (i > 0 && requestRate !== Number.POSITIVE_INFINITY)
      now += gap(burstiness, randomStream(seed, ARRIVALS, i)) / requestRate;
    return now;
  });
}

/** A length from `random`, an integer of at least 0; a log-normal one may be as large as it likes. */
export function drawLength(lengths: Lengths, random: () => number): number {
  switch (lengths.kind) {
    case "fixed":
      return lengths.tokens;
    case "uniform":
      return lengths.from + Math.floor(random() * (lengths.to - lengths.from + 1));
    case "lognormal": {
      // The mean of exp(N(mu, sigma²)) is exp(mu + sigma² / 2).
      const mu = Math.log(lengths.mean) - lengths.sigma ** 2 / 2;
      return Math.round(Math.exp(mu + lengths.sigma * normal(random)));
    }
  }
}

/**
 * "200", "uniform:10-50" or "lognormal:200,1" (mean, sigma). Throws BadInput that names the flag, what was given and what was
 * wanted.
 */
export function parseLengths(flag: string, text: string): Lengths {
  const [, tokens] = /^(\d+)$/.exec(text) ?? [];
  if (tokens !== undefined && isLength(Number(tokens))) return { kind: "fixed", tokens: Number(tokens) };
  const [, from, to] = (/^uniform:(\d+)-(\d+)$/.exec(text) ?? []).map(Number);
  if (isLength(from) && isLength(to) && from <= to) return { kind: "uniform", from, to };
  const [, mean, sigma] = (/^lognormal:(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)$/.exec(text) ?? []).map(Number);
  if (mean !== undefined && sigma !== undefined && mean >= 1 && mean <= MOST_TOKENS && sigma <= MOST_SIGMA)
    return { kind: "lognormal", mean, sigma };
  throw new BadInput(
    `${flag} is "${text}"; wanted a number of tokens from 1, uniform:10-50, or lognormal:200,1 ` +
      `(mean from 1; standard deviation of the logarithm from 0 to ${MOST_SIGMA})`,
  );
}

/** The form that `parseLengths` reads. */
export function lengthsText(lengths: Lengths): string {
  switch (lengths.kind) {
    case "fixed":
      return String(lengths.tokens);
    case "uniform":
      return `uniform:${lengths.from}-${lengths.to}`;
    case "lognormal":
      return `lognormal:${lengths.mean},${lengths.sigma}`;
  }
}

const MOST_TOKENS = 2 ** 24;
/** Of a logarithm: with 4 one length in six is 55 times the median or more. */
const MOST_SIGMA = 4;

function isLength(value: number | undefined): value is number {
  return value !== undefined && value >= 1 && value <= MOST_TOKENS;
}

/** The tokens that must fit whatever is drawn: a log-normal length gives way. */
export function surely(lengths: Lengths): number {
  return lengths.kind === "fixed" ? lengths.tokens : lengths.kind === "uniform" ? lengths.to : 1;
}

function clipped(length: number, most: number): number {
  return Math.max(1, Math.min(length, most));
}

function randomIds(
  seed: number | bigint,
  purpose: number,
  i: number,
  count: number,
  vocabSize: number,
): number[] {
  const random = randomStream(seed, purpose, i);
  return Array.from({ length: count }, () => Math.floor(random() * vocabSize));
}

/** Numbers in [0, 1) with 53 bits: the same ones for the same seed, purpose and request. */
function randomStream(seed: number | bigint, purpose: number, i: number): () => number {
  const key = seedWords(seed);
  let count = 0;
  return () => {
    const [high, low] = philox4x32([count++, i, purpose, 0], key);
    return ((high >>> 5) * 2 ** 26 + (low >>> 6)) / 2 ** 53;
  };
}

/** A standard normal number, after Box and Muller. */
function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** A gap with mean 1. */
function gap(burstiness: number, random: () => number): number {
  if (burstiness === Number.POSITIVE_INFINITY) return 1;
  return burstiness === 1 ? -Math.log(1 - random()) : gamma(burstiness, random) / burstiness;
}

/** A gamma number of scale 1 (Marsaglia and Tsang, "A simple method for generating gamma variables", 2000). */
function gamma(shape: number, random: () => number): number {
  if (shape < 1) return gamma(shape + 1, random) * (1 - random()) ** (1 / shape);
  const d = shape - 1 / 3;
  for (;;) {
    const x = normal(random);
    const v = (1 + x / Math.sqrt(9 * d)) ** 3;
    if (v > 0 && Math.log(1 - random()) < x ** 2 / 2 + d - d * v + d * Math.log(v)) return d * v;
  }
}
