import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BeamSearch } from "../../src/generate/beam-search.ts";

/** Logits [V] after generated ids. */
type Model = (tokens: readonly number[]) => Float32Array;

interface Settings {
  readonly beams: number;
  readonly maxLength: number;
  readonly eosIds: ReadonlySet<number>;
  readonly lengthPenalty?: number;
}

/** A model of `vocabulary` tokens whose logits are any numbers that depend on all that came before. */
const randomModel =
  (seed: number, vocabulary: number, scale = 3): Model =>
  (tokens) => {
    let hash = tokens.reduce((h, token) => Math.imul(h ^ (token + 1), 0x85ebca6b) ^ (h >>> 13), seed);
    return Float32Array.from({ length: vocabulary }, () => {
      hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
      return ((hash >>> 8) / 2 ** 24 - 0.5) * 2 * scale;
    });
  };

function logProbabilities(logits: Float32Array): number[] {
  const total = logits.reduce((sum, value) => sum + Math.exp(value), 0);
  return Array.from(logits, (value) => value - Math.log(total));
}

function search(model: Model, settings: Settings): BeamSearch {
  const beams = new BeamSearch(settings);
  while (!beams.isDone) {
    const before = beams.running;
    const choices = beams.advance(before.map(model))!;
    expect(beams.running).toEqual(choices.map(({ parent, token }) => [...before[parent]!, token]));
  }
  return beams;
}

const plain = (beams: BeamSearch) => beams.results.map(({ tokens, score }) => ({ tokens, score }));

/** transformers 5.17, GenerationMixin._beam_search, with its tensors as arrays: places that are empty have scores of -1e9. */
function huggingFace(model: Model, { beams, maxLength, eosIds, lengthPenalty = 1 }: Settings) {
  interface Row {
    tokens: number[];
    score: number;
    done: boolean;
  }
  const topK = (rows: Row[], k: number) => [...rows].sort((a, b) => b.score - a.score).slice(0, k);
  const row = (score: number): Row => ({ tokens: [], score, done: false });
  let running = Array.from({ length: beams }, (_, i) => row(i === 0 ? 0 : -1e9));
  let finished = Array.from({ length: beams }, () => row(-1e9));
  for (let length = 1; ; length++) {
    const continued = running.flatMap(({ tokens, score }) =>
      logProbabilities(model(tokens)).map((log, id) => ({
        tokens: [...tokens, id],
        score: score + log,
        done: false,
      })),
    );
    const top = topK(continued, Math.max(2, 1 + eosIds.size) * beams);
    for (const candidate of top)
      candidate.done = eosIds.has(candidate.tokens.at(-1)!) || length === maxLength;
    running = topK(
      top.map((candidate) => ({ ...candidate, score: candidate.score + (candidate.done ? -1e9 : 0) })),
      beams,
    );
    const ended = top.map(({ tokens, score, done }, i) => ({
      tokens,
      score: score / length ** lengthPenalty - (done && i < beams ? 0 : 1e9),
      done: done && i < beams,
    }));
    finished = topK([...finished, ...ended], beams);
    const worst = Math.min(...finished.map(({ score }) => score));
    const canImprove = finished.some(
      ({ done }) => running[0]!.score / length ** lengthPenalty > (done ? worst : -1e9),
    );
    if (!canImprove || top.every(({ done }) => done)) break;
  }
  return finished.filter(({ done }) => done).map(({ tokens, score }) => ({ tokens, score }));
}

/** Every text that can be, best first. */
function exhaustive(model: Model, { maxLength, eosIds }: Settings) {
  const all: { tokens: number[]; score: number }[] = [];
  const visit = (tokens: number[], sum: number) => {
    logProbabilities(model(tokens)).forEach((log, id) => {
      const next = [...tokens, id];
      if (eosIds.has(id) || next.length === maxLength)
        all.push({ tokens: next, score: (sum + log) / next.length });
      else visit(next, sum + log);
    });
  };
  visit([], 0);
  return all.sort((a, b) => b.score - a.score);
}

function expectClose(
  found: readonly { tokens: readonly number[]; score: number }[],
  wanted: readonly { tokens: readonly number[]; score: number }[],
): void {
  expect(found.map(({ tokens }) => tokens)).toEqual(wanted.map(({ tokens }) => tokens));
  found.forEach(({ score }, i) => {
    expect(Math.abs(score - wanted[i]!.score)).toBeLessThan(1e-6);
  });
}

describe("beam search", () => {
  test("gives what transformers gives, whatever ends when", () => {
    let byEos = 0;
    fc.assert(
      fc.property(
        fc.record({
          seed: fc.integer(),
          beams: fc.integer({ min: 2, max: 5 }),
          vocabulary: fc.integer({ min: 16, max: 24 }),
          maxLength: fc.integer({ min: 1, max: 8 }),
          eos: fc.integer({ min: 0, max: 3 }),
          scale: fc.constantFrom(0.3, 3, 8),
          lengthPenalty: fc.constantFrom(1, 1, 0, 2, -1),
        }),
        ({ seed, vocabulary, eos, scale, ...rest }) => {
          const model = randomModel(seed, vocabulary, scale);
          const settings = { ...rest, eosIds: new Set(Array.from({ length: eos }, (_, i) => i)) };
          const found = search(model, settings);
          expectClose(plain(found), huggingFace(model, settings));
          byEos += found.results.filter(({ endedByEos }) => endedByEos).length;
        },
      ),
      { numRuns: 400, seed: 2 },
    );
    expect(byEos).toBeGreaterThan(200);
  });

  test("with as many beams as there are texts, finds the best of them all", () => {
    for (let seed = 1; seed < 20; seed++) {
      const model = randomModel(seed, 4);
      const settings = { beams: 64, maxLength: 3, eosIds: new Set<number>() };
      expectClose(plain(search(model, settings)), exhaustive(model, settings));
    }
  });

  test("begins with one row, the prompt's, and goes on with one for each beam", () => {
    const beams = new BeamSearch({ beams: 2, maxLength: 5, eosIds: new Set() });
    expect(beams.running).toEqual([[]]);
    expect(beams.advance([Float32Array.of(0, 3, 1, 2)])).toEqual([
      { parent: 0, token: 1 },
      { parent: 0, token: 3 },
    ]);
    expect([beams.running, beams.isDone]).toEqual([[[1], [3]], false]);
    // Both continue the first beam, which is e² times as likely or more.
    expect(beams.advance([Float32Array.of(5, 5, -9, -9), Float32Array.of(0, 0, 0, 0)])).toEqual([
      { parent: 0, token: 0 },
      { parent: 0, token: 1 },
    ]);
  });

  test("of equal scores the earlier beam comes first, and then the lower id", () => {
    const beams = new BeamSearch({ beams: 3, maxLength: 4, eosIds: new Set() });
    const even = Float32Array.of(1, 1, 1, 1, 1, 1);
    expect(beams.advance([even])!.map(({ token }) => token)).toEqual([0, 1, 2]);
    expect(beams.advance([even, even, even])).toEqual([0, 1, 2].map((token) => ({ parent: 0, token })));
  });

  test("scores are means of log-probabilities, and an eos token counts", () => {
    const half = Float32Array.of(0, 0);
    const beams = search(() => half, { beams: 2, maxLength: 9, eosIds: new Set([1]) });
    expect(beams.results.map(({ tokens, endedByEos }) => [tokens, endedByEos])).toEqual([
      [[1], true],
      [[0, 1], true],
    ]);
    for (const { score } of beams.results) expect(score).toBeCloseTo(Math.log(0.5), 12);
  });

  test("chooses nothing where a row has NaN, Infinity, or nothing finite; -Infinity rules a token out", () => {
    for (const row of [
      [1, Number.NaN],
      [1, Infinity],
      [-Infinity, -Infinity],
    ])
      expect(
        new BeamSearch({ beams: 2, maxLength: 3, eosIds: new Set() }).advance([Float32Array.from(row)]),
      ).toBeUndefined();
    const beams = new BeamSearch({ beams: 2, maxLength: 3, eosIds: new Set() });
    expect(beams.advance([Float32Array.of(-Infinity, 0, -Infinity)])).toEqual([{ parent: 0, token: 1 }]);
  });
});
