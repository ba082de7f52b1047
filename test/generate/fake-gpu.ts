import { check } from "../../src/check.ts";
import { BeamSearch } from "../../src/generate/beam-search.ts";
import type { Completion, RequestOptions } from "../../src/generate/engine-types.ts";
import { Sequence } from "../../src/generate/sequence.ts";
import type { PendingToken, PlanPiece, StepPlan } from "../../src/generate/step-plan.ts";
import type { KvSpace } from "../../src/kv/kv-space.ts";

export const VOCABULARY = 16;

/** Hash of a history that has one token more. */
const extend = (hash: number, token: number, position: number): number => {
  let h = Math.imul(hash ^ (token + 1), 0x85ebca6b) ^ position;
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
};

const hashOf = (tokens: readonly number[]): number => tokens.reduce(extend, 0);

/** The token that the fake model chooses after a history: it depends on all of it, and on what picks a random number. */
function chosen(hash: number, seed: number | bigint, sequenceId: number, generated: number): number {
  const mixed = [Number(seed), sequenceId, generated].reduce((h, value) => extend(h, value, 77), hash);
  return mixed % VOCABULARY;
}

/** Logits [V] after a history. */
const logitsAfter = (hash: number): Float32Array =>
  Float32Array.from({ length: VOCABULARY }, (_, id) => (extend(hash, id, 99) % 4096) / 512 - 4);

/**
 * Carries out plans on memory that holds, instead of keys and values, what they are made of: each slot its token and position, and
 * a hash of the history that was read, through the sequence's slots, when it was written. Before a token is chosen, all that the
 * sequence sees is compared with what its history should have put there.
 */
export class FakeGpu {
  readonly #space: KvSpace;
  readonly #tokens: Int32Array;
  readonly #positions: Int32Array;
  readonly #hashes: Float64Array;
  /** Plan that wrote a slot last. */
  readonly #writtenBy: Int32Array;
  /** By owner, contents of its pages. */
  readonly host = new Map<number, Float64Array[]>();
  readonly #sampled = new Map<number, number[]>();

  constructor(space: KvSpace) {
    this.#space = space;
    this.#tokens = new Int32Array(space.slots).fill(-1);
    this.#positions = new Int32Array(space.slots).fill(-1);
    this.#hashes = new Float64Array(space.slots);
    this.#writtenBy = new Int32Array(space.slots).fill(-1);
  }

  run(plan: StepPlan): { tokens: number[]; logits: Map<number, Float32Array> } {
    for (const { owner, pages } of plan.swapOuts)
      this.host.set(
        owner,
        pages.map((page) => this.#readPage(page)),
      );
    const read = plan.copies.map(({ from }) => this.#readPage(from));
    const targets = new Set(plan.copies.map(({ to }) => to));
    check(targets.size === plan.copies.length, "two copies go to one page");
    check(!plan.copies.some(({ from }) => targets.has(from)), "a copy comes from a page that one goes to");
    plan.copies.forEach(({ to }, i) => {
      this.#writePage(to, read[i]!);
    });
    for (const { owner, pages } of plan.swapIns) {
      const contents = this.host.get(owner);
      check(contents?.length === pages.length, `owner ${owner} has not ${pages.length} pages on the host`);
      pages.forEach((page, i) => {
        if (page !== 0) this.#writePage(page, contents[i]!);
      });
      this.host.delete(owner);
    }
    const written = plan.pieces.map((piece) => this.#write(plan, piece));
    const hashes = plan.pieces.map((piece, i) => this.#attend(piece, written[i]!));
    const logits = new Map<number, Float32Array>();
    const tokens = plan.samples.map(({ piece, sampling, sequenceId, generated, wantsLogits }, sample) => {
      this.#verify(plan.pieces[piece]!);
      if (wantsLogits) logits.set(sample, logitsAfter(hashes[piece]!));
      return chosen(hashes[piece]!, sampling.seed, sequenceId, generated);
    });
    this.#sampled.set(plan.number, tokens);
    this.#sampled.delete(plan.number - 4);
    return { tokens, logits };
  }

  #slot(row: readonly number[], position: number): number {
    const { kind, pageSize } = this.#space;
    if (kind === "strips") return row[0]! + position;
    const page = row[Math.floor(position / pageSize)];
    check(page !== undefined && page !== 0, `no page for position ${position}`);
    return page * pageSize + (position % pageSize);
  }

  /** Layer 0: tokens and positions go into their slots. Returns the ids. */
  #write({ number }: StepPlan, { holding, position, tokens }: PlanPiece): number[] {
    const row = this.#space.slotRow(holding);
    const ids = tokens.map((token) => (typeof token === "number" ? token : this.#forwarded(token)));
    ids.forEach((id, i) => {
      const slot = this.#slot(row, position + i);
      check(this.#writtenBy[slot] !== number, `slot ${slot} is written twice by plan ${number}`);
      this.#writtenBy[slot] = number;
      this.#tokens[slot] = id;
      this.#positions[slot] = position + i;
    });
    return ids;
  }

  #forwarded({ plan, sample }: PendingToken): number {
    const token = this.#sampled.get(plan)?.[sample];
    check(token !== undefined, `sample ${sample} of plan ${plan} is not there`);
    return token;
  }

  /** Layer 1: each new token sees, through the slots, all that came before. Returns what the last one saw. */
  #attend({ holding, position }: PlanPiece, ids: readonly number[]): number {
    const row = this.#space.slotRow(holding);
    let hash = 0;
    for (let p = 0; p < position + ids.length; p++) {
      const slot = this.#slot(row, p);
      hash = extend(hash, this.#tokens[slot]!, p);
      if (p >= position) this.#hashes[slot] = hash;
    }
    return hash;
  }

  /** Layer 2: what is in the slots is what this history puts there. */
  #verify({ holding, position, tokens }: PlanPiece): void {
    const row = this.#space.slotRow(holding);
    let hash = 0;
    for (let p = 0; p < position + tokens.length; p++) {
      const slot = this.#slot(row, p);
      hash = extend(hash, this.#tokens[slot]!, p);
      check(
        this.#positions[slot] === p && this.#hashes[slot] === hash,
        () => `owner ${holding.owner}: slot ${slot} of position ${p} has other contents`,
      );
    }
  }

  #readPage(page: number): Float64Array {
    const { pageSize } = this.#space;
    const contents = new Float64Array(3 * pageSize);
    for (let i = 0; i < pageSize; i++) {
      const slot = page * pageSize + i;
      contents.set([this.#tokens[slot]!, this.#positions[slot]!, this.#hashes[slot]!], 3 * i);
    }
    return contents;
  }

  #writePage(page: number, contents: Float64Array): void {
    const { pageSize } = this.#space;
    for (let i = 0; i < pageSize; i++) {
      const slot = page * pageSize + i;
      this.#tokens[slot] = contents[3 * i]!;
      this.#positions[slot] = contents[3 * i + 1]!;
      this.#hashes[slot] = contents[3 * i + 2]!;
    }
  }
}

/** What the fake model makes of a request that is alone in the world. */
export function alone(options: RequestOptions, contextLength: number): Completion[] {
  const { prompt, sampling, n = 1, beams = 1, sequenceId = 0 } = options;
  if (beams > 1) return aloneBeams(options, beams, contextLength);
  return Array.from({ length: n }, (_, index) => {
    const { textStream, ...rest } = options;
    const sequence = new Sequence({
      ...rest,
      contextLength,
      id: sequenceId + index,
      ...(textStream ? { textStream: textStream() } : {}),
    });
    while (sequence.finishReason === null) {
      const hash = hashOf(sequence.tokens);
      sequence.accept(chosen(hash, sampling.seed, sequenceId + index, sequence.generatedLength));
    }
    const { tokens, text, finishReason } = sequence;
    return { index, tokens: tokens.slice(prompt.length), text, finishReason };
  });
}

function aloneBeams(options: RequestOptions, beams: number, contextLength: number): Completion[] {
  const { prompt, maxNewTokens, eosIds } = options;
  const search = new BeamSearch({
    beams,
    maxLength: Math.min(maxNewTokens, contextLength - prompt.length),
    eosIds: new Set(eosIds),
  });
  while (!search.isDone)
    search.advance(search.running.map((tokens) => logitsAfter(hashOf([...prompt, ...tokens]))));
  return search.results.map(({ tokens, score, endedByEos }, index) => ({
    index,
    tokens,
    text: "",
    score,
    finishReason: endedByEos ? "eos" : tokens.length < maxNewTokens ? "context" : "length",
  }));
}
