import { check } from "../check.ts";
import { OutOfMemory } from "../gpu/errors.ts";
import type { KvSpace } from "../kv/kv-space.ts";
import type { HostPages } from "../model/page-moves.ts";
import type {
  ForwardedToken,
  RaggedBatch,
  RaggedPiece,
  RaggedResult,
  RaggedSample,
} from "../model/ragged-batch.ts";
import type { RaggedStep } from "../model/ragged-step.ts";
import type { PendingToken, PlanPiece, PlanSample, PlanSwap, StepPlan } from "./step-plan.ts";

/** What steps run on: a RaggedStep, or a stand-in for it in tests. */
export type StepDevice = Pick<
  RaggedStep,
  "launch" | "copyPages" | "readPages" | "writePages" | "openSeen" | "closeSeen" | "free"
>;

/** A step that was submitted. */
export interface Flight {
  readonly plan: StepPlan;
  /** What the device calls it: the number for forwarded tokens. */
  readonly launch: number;
  readonly result: Promise<RaggedResult>;
}

/**
 * Turns plans into launches, in their order, and keeps what plans only name: pages that lie on the host, and rows of tokens
 * seen. It knows sequences by their owner numbers.
 */
export class EngineSteps {
  readonly #device: StepDevice;
  readonly #space: KvSpace;
  readonly #historyOf: (owner: number) => readonly number[];
  /** Submitted and not taken, oldest first. */
  readonly #flights: Flight[] = [];
  /** Contents of the pages of swapped sequences, in the order of positions. */
  readonly #onHost = new Map<number, Promise<HostPages>>();
  /** Of them, those that have not arrived. */
  readonly #leaving = new Map<number, Promise<HostPages>>();
  readonly #seen = new Map<number, number>();
  /** Sequences whose pages did not arrive, because there was no room for staging buffers. */
  #lost: number[] = [];

  /** `historyOf` tells the tokens of a sequence so far: asked when one with a repetition penalty gets its row. */
  constructor(device: StepDevice, space: KvSpace, historyOf: (owner: number) => readonly number[]) {
    this.#device = device;
    this.#space = space;
    this.#historyOf = historyOf;
  }

  get inFlight(): number {
    return this.#flights.length;
  }

  /** Sequences whose pages are on the host no more since the last call: they must be computed again. */
  takeLost(): readonly number[] {
    const lost = this.#lost;
    if (lost.length > 0) this.#lost = [];
    return lost;
  }

  /** Are the pages of a sequence still on their way to the host? There may be no room for them. */
  isLeaving(owner: number): boolean {
    return this.#leaving.has(owner);
  }

  /** Wait until pages on their way have arrived, or are lost. False if there are none. */
  async untilArrived(): Promise<boolean> {
    const leaving = [...this.#leaving.values()];
    await Promise.allSettled(leaving);
    return leaving.length > 0;
  }

  /** Take the oldest step, to await its result. */
  takeOldest(): Flight | undefined {
    return this.#flights.shift();
  }

  /**
   * Do what the plan says: swaps out, copies, swaps in, the pieces with their samples. Where it wants pages back from the host, a
   * promise comes back; until then nothing else may be submitted.
   */
  submit(plan: StepPlan): Promise<void> | undefined {
    const { swapOuts, copies, swapIns, pieces, samples } = plan;
    for (const { owner, pages } of swapOuts) this.#swapOut(owner, pages);
    if (copies.length > 0) this.#device.copyPages(copies);
    const batch = {
      pieces: pieces.map((piece) => this.#pieceOf(piece)),
      samples: samples.map((sample) => this.#sampleOf(sample)),
    };
    if (swapIns.length === 0) {
      this.#launch(plan, batch);
      return undefined;
    }
    // Whoever is aborted while this waits gives its pages back, and the list of them with it.
    const lasting = { ...batch, pieces: batch.pieces.map((p) => ({ ...p, slotRow: [...p.slotRow] })) };
    return this.#swapIn(swapIns).then(() => this.#launch(plan, lasting));
  }

  /** A sequence has ended: what is kept of it goes. Steps in flight are not touched by that. */
  leave(owner: number): void {
    this.#onHost.delete(owner);
    this.#leaving.delete(owner);
    this.preempt(owner);
  }

  /** A sequence has lost its place. Its row of tokens seen is made anew when it comes back. */
  preempt(owner: number): void {
    const row = this.#seen.get(owner);
    if (row === undefined) return;
    this.#device.closeSeen(row);
    this.#seen.delete(owner);
  }

  /** Wait for what is in flight, whatever comes of it, and give the memory back. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#flights.map(({ result }) => result));
    await Promise.allSettled(this.#onHost.values());
    this.#flights.length = 0;
    this.#onHost.clear();
    this.#device.free();
  }

  #launch(plan: StepPlan, batch: RaggedBatch): void {
    const { launch, result } = this.#device.launch(batch);
    this.#flights.push({ plan, launch, result });
  }

  async #swapIn(swaps: readonly PlanSwap[]): Promise<void> {
    const contents = swaps.map(({ owner }) => this.#onHost.get(owner));
    for (const [i, { owner, pages }] of swaps.entries()) {
      check(contents[i], () => `engine: the pages of sequence ${owner} are not on the host`);
      this.#device.writePages(pages, await contents[i]);
      this.#onHost.delete(owner);
    }
  }

  #swapOut(owner: number, pages: readonly number[]): void {
    const contents = this.#device.readPages(pages);
    this.#onHost.set(owner, contents);
    this.#leaving.set(owner, contents);
    // Another failure is told to whoever wants the pages back; until then it must not count as unhandled.
    contents.then(
      () => this.#arrived(owner, contents),
      (error: unknown) => {
        if (this.#arrived(owner, contents) && error instanceof OutOfMemory) this.#lost.push(owner);
      },
    );
  }

  /** False if the sequence has sent other pages since, or has ended. */
  #arrived(owner: number, contents: Promise<HostPages>): boolean {
    if (this.#leaving.get(owner) !== contents) return false;
    return this.#leaving.delete(owner);
  }

  #pieceOf({ holding, position, tokens }: PlanPiece): RaggedPiece {
    const slotRow = this.#space.slotRow(holding);
    const last = tokens[tokens.length - 1]!;
    if (typeof last === "number") return { tokens: tokens as readonly number[], position, slotRow };
    const forwarded = this.#forwarded(last);
    // Nearly always it is alone.
    const all = tokens.length === 1 ? [forwarded] : [...(tokens.slice(0, -1) as number[]), forwarded];
    return { tokens: all, position, slotRow };
  }

  /** A token that only the GPU knows: which launch has it. */
  #forwarded({ plan, sample }: PendingToken): ForwardedToken {
    for (const flight of this.#flights)
      if (flight.plan.number === plan) return { launch: flight.launch, sample };
    throw new Error(`engine: a token of plan ${plan} is pending, but that plan is not in flight`);
  }

  #sampleOf({ piece, owner, sampling, sequenceId, generated, wantsLogits }: PlanSample): RaggedSample {
    const sample = { piece, settings: sampling, sequenceId, generated, wantsLogits };
    if ((sampling.repetitionPenalty ?? 1) === 1) return sample;
    let seen = this.#seen.get(owner);
    if (seen === undefined) {
      seen = this.#device.openSeen(this.#historyOf(owner));
      this.#seen.set(owner, seen);
    }
    return { ...sample, seen };
  }
}
