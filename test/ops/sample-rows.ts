// Rows for the sampling kernel's tests, and the verdict of the CPU sampler, in float64, on the tokens it chose.

import { uniform } from "../../src/generate/random.ts";
import { sample as cpuSample, probabilities, type SamplingOptions } from "../../src/generate/sampler.ts";
import type { Gpu } from "../../src/gpu/gpu.ts";
import type { Bests } from "../../src/ops/norm-head.ts";
import { type SampleSlots, sample, settingsWords } from "../../src/ops/sample.ts";
import { Tensor } from "../../src/tensor.ts";

/** One sequence's next token: all that it depends on. */
export interface Case {
  readonly name: string;
  readonly logits: Float32Array;
  readonly history: readonly number[];
  readonly options: SamplingOptions;
  readonly sequenceId: number;
  /** Tokens generated before. */
  readonly step: number;
}

const STEP_STRIDE = 64;

/** The bit set of `seen` for ids of a vocabulary. */
export function bitSet(vocabulary: number, ids: readonly number[]): Uint32Array {
  const words = new Uint32Array(Math.ceil(vocabulary / 32));
  for (const id of ids) words[id >>> 5]! |= 1 << (id & 31);
  return words;
}

/** Step arrays [6, stride] of sequences, from the six values of each. */
export function stepArrays(sequences: readonly (readonly number[])[]): number[] {
  const stride = Math.ceil(sequences.length / STEP_STRIDE) * STEP_STRIDE;
  const words = new Array<number>(6 * stride).fill(0);
  sequences.forEach((values, s) => {
    values.forEach((value, row) => {
      words[row * stride + s] = value;
    });
  });
  return words;
}

/** A float's key of shaders/score-key.wgsl. */
export function keyOf(x: number): number {
  if (Number.isNaN(x) || x === Number.POSITIVE_INFINITY) return 0xffffffff;
  const [bits] = new Uint32Array(Float32Array.of(x === 0 ? 0 : x).buffer);
  return (bits! & 0x80000000 ? ~bits! : bits! | 0x80000000) >>> 0;
}

/** A row of `Bests`: keys, then ids, of shares that have every shares-th stripe each. */
export function bestRow(logits: ArrayLike<number>, shares: number, stripe: number): number[] {
  const keys = new Array<number>(shares).fill(0);
  const ids = new Array<number>(shares).fill(0xffffffff);
  for (let id = 0; id < logits.length; id++) {
    const share = Math.floor(id / stripe) % shares;
    const key = keyOf(logits[id]!);
    if (key > keys[share]!) [keys[share], ids[share]] = [key, id];
  }
  return [...keys, ...ids];
}

/** What a head that worked in so many shares would say of the cases' logits. */
export function bestsOf(gpu: Gpu, cases: readonly Case[], shares: number, stripe: number): Bests {
  const rows = cases.flatMap(({ logits }) => bestRow(logits, shares, stripe));
  return { table: Tensor.from(gpu, [cases.length, 2 * shares], rows, { dtype: "u32" }), stripe };
}

/** The kernel's arguments for cases with one vocabulary; the arrays are at position 0 unless `sequences` says otherwise. */
export function argumentsOf(
  gpu: Gpu,
  cases: readonly Case[],
  {
    ring = 1,
    slots = {} as Partial<SampleSlots>,
    maxPositions = 1024,
    sequences = cases.map(({ step }) => [0, 0, 0, 1, step, 0]),
  } = {},
) {
  const rows = cases.length;
  const vocabulary = cases[0]!.logits.length;
  const integers = (shape: number[], values: readonly number[], label: string) =>
    Tensor.from(gpu, shape, values, { dtype: "u32", label });
  const values = new Float32Array(rows * vocabulary);
  cases.forEach(({ logits }, s) => {
    values.set(logits, s * vocabulary);
  });
  const step = stepArrays(sequences);
  const settings = cases.flatMap(({ options, sequenceId }) => [...settingsWords(options, sequenceId)]);
  const seen = cases.flatMap(({ history }) => [...bitSet(vocabulary, history)]);
  return {
    logits: Tensor.from(gpu, [rows, vocabulary], values),
    settings: integers([rows, 8], settings, "settings"),
    seen: integers([rows, Math.ceil(vocabulary / 32)], seen, "seen"),
    slots: { table: slots.table ?? integers([rows], new Array(rows).fill(0), "strips"), ...slots },
    step: integers([6, step.length / 6], step, "step"),
    tokens: integers([ring, rows], new Array(ring * rows).fill(0xdead), "tokens"),
    maxPositions,
  };
}

export function freeAll({
  logits,
  settings,
  seen,
  slots,
  step,
  tokens,
}: ReturnType<typeof argumentsOf>): void {
  for (const tensor of [logits, settings, seen, slots.table, step, tokens]) tensor.free();
}

/** The tokens that the kernel chooses for cases with one vocabulary. */
export async function choose(
  gpu: Gpu,
  cases: readonly Case[],
  { bests, greedy = false }: { bests?: Bests; greedy?: boolean } = {},
): Promise<number[]> {
  const buffers = argumentsOf(gpu, cases);
  sample({ ...buffers, bests, greedy });
  const tokens = [...(await buffers.tokens.readIntegers())];
  freeAll(buffers);
  bests?.table.free();
  return tokens;
}

/**
 * How far the kernel's running sums may be from the float64 ones. An exponent of -20 in f32 is 2 · 10⁻⁶ off, and with it
 * the weight of a token that unlikely; near the top of the distribution it is less.
 */
const TOLERANCE = 2e-6;

/** Does `token`'s share of the distribution hold u, give or take the tolerance? */
function holds({ logits, history }: Case, options: SamplingOptions, u: number, token: number): boolean {
  const p = probabilities(logits, history, options);
  if (!(p[token]! > 0)) return false;
  let below = 0;
  for (let id = 0; id < token; id++) below += p[id]!;
  return below - TOLERANCE <= u && u <= below + p[token]! + TOLERANCE;
}

/** The case with its penalty applied as f32 applies it, which may make scores equal that are not so in f64. */
function roundedPenalty(given: Case): Case {
  const penalty = Math.fround(given.options.repetitionPenalty ?? 1);
  const logits = given.logits.slice();
  for (const id of new Set(given.history)) logits[id]! *= logits[id]! < 0 ? penalty : 1 / penalty;
  for (const id of new Set(given.history))
    if (given.logits[id]! >= 0) logits[id] = Math.fround(given.logits[id]! / penalty);
  return { ...given, logits, options: { ...given.options, repetitionPenalty: 1 } };
}

/**
 * The CPU sampler's verdict on a token: "same"; "edge": u lies within the tolerance of the edge of its share; "filter": so
 * it does if top-p or min-p are moved by the tolerance, or the penalised scores rounded to f32; or "wrong".
 */
export function verdict(given: Case, token: number): "same" | "edge" | "filter" | "wrong" {
  const { logits, history, options, sequenceId, step } = given;
  const u = uniform(options.seed, sequenceId, step);
  if (cpuSample(logits, history, options, u) === token) return "same";
  if (options.temperature > 0 && holds(given, options, u, token)) return "edge";
  const { topP = 1, minP = 0 } = options;
  for (const scores of [given, roundedPenalty(given)])
    for (const p of [topP, topP - TOLERANCE, Math.min(topP + TOLERANCE, 1)])
      for (const m of [minP, minP * (1 - TOLERANCE), Math.min(minP * (1 + TOLERANCE), 1)]) {
        const moved = { ...scores.options, topP: p, minP: m };
        if (cpuSample(scores.logits, scores.history, moved, u) === token) return "filter";
        if (moved.temperature > 0 && holds(scores, moved, u, token)) return "filter";
      }
  return "wrong";
}

/** A source of numbers in [0, 1) that gives the same ones for the same seed. */
export function numbers(seed: number): () => number {
  let at = 0;
  return () => uniform(seed, 77, at++);
}

type Fill = (random: () => number, n: number) => Float32Array;
const filled =
  (value: (random: () => number, i: number) => number): Fill =>
  (random, n) =>
    Float32Array.from({ length: n }, (_, i) => value(random, i));
const normal = (random: () => number): number =>
  Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

/** Rows of logits, each with what is hard about it. Every row has a finite logit. */
export const ROWS: Record<string, Fill> = {
  "like a model's": filled((random) => -35 + 3 * normal(random)),
  flat: filled((random) => 0.1 * normal(random)),
  "few values, many ties": filled((random) => Math.floor(random() * 4)),
  "integers around zero, both zeros": filled((random) => Math.round(3 * normal(random)) * 0.5),
  equal: filled(() => -2.5),
  "±1e4": filled((random) => (random() < 0.5 ? -1e4 : 1e4) * random()),
  "one outlier": (random, n) => {
    const row = filled(normal)(random, n);
    row[Math.floor(random() * n)] = 300;
    return row;
  },
  "mostly ruled out": (random, n) => {
    const row = filled(() => (random() < 0.9 ? Number.NEGATIVE_INFINITY : 2 * normal(random)))(random, n);
    row[Math.floor(random() * n)] = 1;
    return row;
  },
  "one left": (random, n) => {
    const row = new Float32Array(n).fill(Number.NEGATIVE_INFINITY);
    row[Math.floor(random() * n)] = -7;
    return row;
  },
  rising: filled((_, i) => i / 100),
  falling: filled((_, i) => -i / 100),
  "equal but for the last bits": filled((random) => 1 + Math.floor(random() * 3) * 2 ** -23),
};

/** A random choice of settings: every filter is off half of the time. */
export function randomOptions(random: () => number, vocabulary: number): SamplingOptions {
  const pick = <T>(...from: T[]): T => from[Math.floor(random() * from.length)]!;
  const maybe = <T>(value: T): T | undefined => (random() < 0.5 ? value : undefined);
  return {
    temperature: pick(0, 0.1, 0.7, 1, 1, 1.5, 4),
    topK: maybe(pick(1, 2, 7, 50, 64, 65, 128, 129, 300, Math.floor(random() * (vocabulary + 4)))),
    topP: maybe(pick(0.05, 0.3, 0.9, 0.95, 0.999, Math.max(random(), 1e-3))),
    minP: maybe(pick(0.02, 0.3, 1, random())),
    repetitionPenalty: maybe(pick(0.7, 1.1, 1.3, 2)),
    seed: Math.floor(random() * 2 ** 40),
  };
}

/** `count` random cases over one vocabulary. */
export function randomCases(random: () => number, vocabulary: number, count: number): Case[] {
  const kinds = Object.entries(ROWS);
  return Array.from({ length: count }, () => {
    const [name, fill] = kinds[Math.floor(random() * kinds.length)]!;
    const history = Array.from({ length: Math.floor(random() * 12) }, () =>
      Math.floor(random() * vocabulary),
    );
    const [sequenceId, step] = [Math.floor(random() * 1000), Math.floor(random() * 1000)];
    const options = randomOptions(random, vocabulary);
    return { name, logits: fill(random, vocabulary), history, options, sequenceId, step };
  });
}
