import { check } from "../check.ts";
import { dropRun, type PreparedRun, prepareRun, submitRun } from "../gpu/replay.ts";
import type { KvCache, Place, RememberingCache } from "../kv/cache.ts";
import { DecodeStep } from "../model/decode-step.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import { prefill } from "../model/prefill.ts";
import { RING_STEPS, StepState } from "../model/step-state.ts";
import { NO_TOKEN } from "../ops/sample.ts";
import type { Sequence } from "./sequence.ts";

/** How far the host runs ahead of the tokens it has seen; see docs/experiment.md. */
export type Timing = "visible" | "pipelined";

/** A sequence and its place in the cache. */
export interface Member {
  readonly sequence: Sequence;
  readonly place: Place;
}

/** One token for each sequence of a batch. */
export interface TokenRow {
  /** In the batch's order. */
  readonly tokens: Uint32Array;
  /** Tokens that the model computed for it. */
  readonly computedTokens: number;
  /** By a recorded decode step, not by a forward pass. */
  readonly decoded: boolean;
  /** Until the tokens were known; a row of a round of n steps has the n-th part of the round's time. */
  readonly seconds: number;
}

/** Steps that were submitted together; their tokens come back together. */
interface Round {
  readonly steps: number;
  readonly computedTokens: number;
  readonly decoded: boolean;
  readonly result: Promise<ArrayBuffer>;
}

/** Steps in a round, and rounds in flight: on a CPU that plays GPU a step takes longer than waiting for it. */
const ROUND_STEPS = { gpu: 8, software: 1 };
const ROUNDS_AHEAD = 3;

/**
 * Runs a batch of sequences that stays the same until one of them ends. Where the model's decode step can be recorded, the
 * GPU goes from token to token by itself and the host only reads what it did, up to ROUNDS_AHEAD rounds later; otherwise
 * each step is a forward pass. Sampling is on the GPU either way.
 */
export class BatchRunner {
  readonly members: readonly Member[];
  private readonly model: Gpt2;
  private readonly cache: KvCache;
  private readonly timing: Timing;
  private readonly prefillChunk: number | undefined;
  private readonly step: DecodeStep | undefined;
  private readonly state: StepState;
  private readonly rounds: Round[] = [];
  private readonly rows: TokenRow[] = [];
  /** The next step of a host that waits for each, encoded while it waits. */
  private prepared: PreparedRun | undefined;
  private launched = 0;
  /** A slot table grew, and the GPU does not know yet. */
  private slotsChanged = false;
  /** The cache had no slot for the position after the last step that was submitted; `refusal` is what it said. */
  private isShort = false;
  private refusal: unknown;
  private taken = 0;
  /** When the last round came back, in ms. */
  private lastArrival = 0;

  /** Prompts are computed in pieces of up to `prefillChunk` rows. Throws OutOfMemory. */
  constructor(
    model: Gpt2,
    cache: KvCache,
    members: readonly Member[],
    timing: Timing,
    prefillChunk?: number,
  ) {
    this.model = model;
    this.cache = cache;
    this.members = members;
    this.timing = timing;
    this.prefillChunk = prefillChunk;
    const shape = {
      sequences: members.length,
      maxContext: Math.max(...members.map(({ sequence }) => lastLength(sequence))),
      greedy: members.every(({ sequence }) => sequence.sampling.temperature === 0),
    };
    if (DecodeStep.supports(model, cache)) {
      this.step = DecodeStep.make(model, cache, shape);
      this.state = this.step.state;
    } else this.state = new StepState(model.gpu, model.config, cache, shape);
  }

  /** Rows that were submitted and not taken yet. */
  get ahead(): number {
    return this.launched - this.taken;
  }

  /** The next token of each sequence. Nothing more is submitted unless `mayLaunch`: what is ahead is taken. */
  async next(mayLaunch: boolean): Promise<TokenRow> {
    if (this.ahead === 0) this.lastArrival = performance.now();
    if (mayLaunch) this.launch();
    if (this.rows.length === 0) await this.arrive();
    this.taken++;
    return this.rows.shift()!;
  }

  /**
   * The token of a sequence in a row that was taken, for it to accept; what the row was computed from is in the cache now.
   * Throws when the sampler could choose none: only then, since the tokens before it are right.
   */
  tokenOf(member: Member, { tokens, decoded }: TokenRow): number {
    const token = tokens[this.members.indexOf(member)]!;
    check(
      token !== NO_TOKEN,
      "sampler: a logit is NaN or Infinity, or none is finite; there is no token to choose",
    );
    if (this.cache.remembers) {
      const { sequence, place } = member;
      // A forward pass has told the cache itself.
      if (decoded) (this.cache as RememberingCache).grow(place, 1);
      sequence.advance(sequence.tokens.length - sequence.computed);
    }
    return token;
  }

  /** Wait for what is in flight, drop it, and give the memory back. */
  async close(): Promise<void> {
    if (this.prepared) dropRun(this.model.gpu, this.prepared);
    await Promise.allSettled(this.rounds.map((r) => r.result));
    if (this.step) this.step.free();
    else this.state.free();
  }

  // ---- submitting ----------------------------------------------------------------------------------------------

  private launch(): void {
    const { step, timing, members } = this;
    // A prompt has kernels of its own, one of one token too.
    const isPrompt = members.some(({ sequence }) => sequence.computed < sequence.promptLength);
    if (!step || (this.launched === 0 && isPrompt)) {
      if (this.ahead === 0) this.forward();
    } else if (this.ahead === 0 && timing === "visible") this.replayOne(step);
    if (step && timing === "pipelined") this.replayAhead(step);
  }

  /** Forward passes over all that the cache lacks, and a token from its logits. */
  private forward(): void {
    const { model, state, members } = this;
    const items = members.map(({ sequence, place }) => ({
      place,
      tokens: sequence.tokens.slice(sequence.computed),
      prompt: Math.max(0, sequence.promptLength - sequence.computed),
    }));
    const logits = prefill(model, this.cache, items, this.prefillChunk);
    try {
      if (this.launched === 0) {
        // The sampler looks up the slot of the token that it chooses.
        if (this.step && this.stepsLeft() > 1) this.isShort = this.reserve(2) < 2;
        this.load();
      }
      state.sample(logits);
    } finally {
      logits.free();
    }
    const result = model.gpu.read(state.tokens, this.rowOffset(), this.rowBytes);
    const computed = items.reduce((n, item) => n + item.tokens.length, 0);
    this.addRound({ steps: 1, computedTokens: computed, decoded: false, result });
  }

  /** One recorded step, and the next one encoded while this one runs. */
  private replayOne(step: DecodeStep): void {
    this.haveSlots(1);
    const run = this.prepared ?? this.prepare(step, 1);
    this.prepared = undefined;
    this.submit(run, 1);
    if (this.stepsLeft() > 0) this.prepared = this.prepare(step, 1);
  }

  /** Recorded steps in rounds, until ROUNDS_AHEAD of them are on their way or not taken yet. */
  private replayAhead(step: DecodeStep): void {
    const round = ROUND_STEPS[this.model.gpu.forms];
    // Rows that have come and wait to be taken count too: they are what a sequence that ends has computed in vain.
    while (this.ahead + round <= ROUNDS_AHEAD * round && this.stepsLeft() > 0) {
      const untilRingEnds = RING_STEPS - (this.launched % RING_STEPS);
      const steps = Math.min(round, this.stepsLeft(), untilRingEnds);
      // A cache that is full ends the sequence when it comes to that, not while tokens are on their way.
      if (this.isShort && this.ahead > 0) return;
      const possible = this.haveSlots(steps);
      this.submit(this.prepare(step, possible), possible);
    }
  }

  private prepare(step: DecodeStep, steps: number): PreparedRun {
    const bytes = steps * this.rowBytes;
    return prepareRun(this.model.gpu, step.recording, steps, this.state.tokens, this.rowOffset(), bytes);
  }

  private submit(run: PreparedRun, steps: number): void {
    const computedTokens = this.members.length;
    this.addRound({ steps, computedTokens, decoded: true, result: submitRun(this.model.gpu, run) });
  }

  private addRound(round: Round): void {
    // A failure is told to whoever takes the round; until then it must not count as unhandled.
    round.result.catch(() => {});
    this.rounds.push(round);
    this.launched += round.steps;
  }

  private async arrive(): Promise<void> {
    const { steps, computedTokens, decoded, result } = this.rounds[0]!;
    const tokens = new Uint32Array(await result);
    this.rounds.shift();
    const now = performance.now();
    const seconds = (now - this.lastArrival) / 1e3 / steps;
    this.lastArrival = now;
    const width = this.members.length;
    for (let i = 0; i < steps; i++) {
      const row = tokens.subarray(i * width, (i + 1) * width);
      this.rows.push({ tokens: row, computedTokens, decoded, seconds });
    }
  }

  // ---- slots and places ----------------------------------------------------------------------------------------

  /**
   * Slots for `steps` more steps, or for as many as the cache has room for, and for the token after them where there will be
   * one: the GPU looks it up by itself. Returns how many steps; throws what the cache says when there is not even one.
   */
  private haveSlots(steps: number): number {
    const wanted = this.stepsLeft() > steps ? steps + 1 : steps;
    const positions = this.reserve(wanted);
    if (positions === 0) throw this.refusal;
    // After a shortage the GPU does not know its next slot, and the host tells it.
    if (this.launched === 0 || (this.isShort && this.ahead === 0)) this.load();
    else if (this.slotsChanged) this.state.writeSlots(this.members.map(({ place }) => place));
    this.slotsChanged = false;
    this.isShort = positions < wanted;
    return Math.min(steps, positions);
  }

  /** Slots for up to `count` positions of every sequence behind what is ahead: how many all of them have now. */
  private reserve(count: number): number {
    const cache = this.cache as RememberingCache;
    for (let position = 1; position <= count; position++) {
      for (const { sequence, place } of this.members) {
        const missing = sequence.tokens.length - 1 + this.ahead + position - place.length;
        if (missing <= 0) continue;
        const before = cache.slotRow(place).length;
        try {
          cache.reserve(place, missing);
        } catch (error) {
          this.refusal = error;
          return position - 1;
        }
        this.slotsChanged ||= cache.slotRow(place).length !== before;
      }
    }
    return count;
  }

  private load(): void {
    const sequences = this.members.map(({ sequence, place }) => ({
      tokens: sequence.tokens,
      generated: sequence.generatedLength,
      id: sequence.id,
      sampling: sequence.sampling,
      place,
    }));
    this.state.load(sequences, this.launched % RING_STEPS);
    this.slotsChanged = false;
  }

  /** Tokens that every sequence still needs, less those ahead. */
  private stepsLeft(): number {
    const left = this.members.map(({ sequence }) => lastLength(sequence) - sequence.tokens.length);
    return Math.min(...left) - this.ahead;
  }

  private get rowBytes(): number {
    return 4 * this.members.length;
  }

  /** Where in the ring the next step puts its tokens, in bytes. */
  private rowOffset(): number {
    return this.rowBytes * (this.launched % RING_STEPS);
  }
}

/** Tokens that a sequence has when it ends, unless it ends before. */
export function lastLength({ promptLength, maxNewTokens, contextLength }: Sequence): number {
  return Math.min(promptLength + maxNewTokens, contextLength);
}
