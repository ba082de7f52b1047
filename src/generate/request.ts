import { BadInput } from "../check.ts";
import { BeamSearch } from "./beam-search.ts";
import type { Completion, RequestOptions, RequestOutput, RequestTimes } from "./engine-types.ts";
import { Branch } from "./request-branch.ts";
import type { SamplingOptions } from "./sampler.ts";
import { Sequence } from "./sequence.ts";

/** More than any engine runs at once: a wrong number is told before it fills the host's memory. */
const MAX_WIDTH = 4096;

/** Waiting ones are in the queue: new, or preempted. The last three are over. */
export type RequestState = "new" | "waiting" | "running" | "finished" | "aborted" | "failed";

/**
 * One request: a prompt and the sequences (branches) that continue it, n samples or the beams of one search. The scheduler
 * moves it from state to state; whoever submitted it reads `output`.
 */
export class Request {
  readonly id: number;
  readonly prompt: readonly number[];
  readonly sampling: Readonly<SamplingOptions>;
  readonly salt: string;
  readonly priority: number;
  /** Most tokens that a branch comes to; those of `finalLength` are computed, for the last one is not. */
  readonly lastLength: number;
  readonly finalLength: number;
  /** Number of the first sequence among those of its seed. */
  readonly sequenceId: number;
  readonly search: BeamSearch | undefined;
  /** All of them, whether they live or not. */
  readonly branches: readonly Branch[];

  /** Branches that go on. A search begins with one. */
  live: Branch[];
  state: RequestState = "new";
  /** Among requests of one priority the lower arrival comes first. */
  arrival = -1;
  /** Only the first live branch has a place: it computes the prompt, of which the others then have forks. */
  isShared = false;
  /** Logits of all its beams are on their way. */
  awaitsLogits = false;
  /** Those that have come. */
  logits: Float32Array[] = [];
  error: string | undefined;

  times: { -readonly [key in keyof RequestTimes]: RequestTimes[key] } = { submitted: 0 };
  readonly tokenTimes: number[] = [];
  /** See RequestOutput; undefined before the first admission. */
  cachedTokens: number | undefined;
  preemptions = 0;
  readonly #options: RequestOptions;

  /**
   * @param contextLength most tokens of a sequence, prompt and generated
   * Throws BadInput on options that no request can have.
   */
  constructor(id: number, options: RequestOptions, contextLength: number) {
    const { n = 1, beams = 1, sampling } = options;
    validate(options);
    this.id = id;
    this.#options = options;
    this.prompt = [...options.prompt];
    this.sampling = { ...sampling };
    this.salt = options.salt ?? "";
    this.priority = options.priority ?? 0;
    this.sequenceId = options.sequenceId ?? 0;
    // Beams are no sequences, but what a sequence refuses they refuse too.
    const sequences = Array.from({ length: n }, (_, i) => this.#makeSequence(i, contextLength));
    this.lastLength = Math.min(this.prompt.length + options.maxNewTokens, contextLength);
    this.finalLength = this.lastLength - 1;
    if (beams > 1) {
      const maxLength = this.lastLength - this.prompt.length;
      this.search = new BeamSearch({ beams, maxLength, eosIds: eosIdsOf(options) });
      this.branches = Array.from({ length: beams }, (_, i) => new Branch(this, i, undefined, this.prompt));
      this.live = [this.branches[0]!];
    } else {
      this.branches = sequences.map((sequence, i) => new Branch(this, i, sequence, this.prompt));
      this.live = [...this.branches];
    }
  }

  /** Sequences that it may have in a step from now on. */
  get width(): number {
    return this.search?.beams ?? this.live.length;
  }

  get isOver(): boolean {
    return this.state === "finished" || this.state === "aborted" || this.state === "failed";
  }

  /** Some of its tokens or logits are still on the GPU. */
  get hasPending(): boolean {
    return this.awaitsLogits || this.live.some((branch) => branch.pending > 0);
  }

  /** What there is of it so far. */
  output(): RequestOutput {
    return {
      id: this.id,
      promptTokens: this.prompt.length,
      cachedTokens: this.cachedTokens ?? 0,
      completions: this.search ? this.#beamCompletions(this.search) : this.branches.map(completionOf),
      times: { ...this.times },
      tokenTimes: [...this.tokenTimes],
      preemptions: this.preemptions,
      ...(this.error === undefined ? {} : { error: this.error }),
    };
  }

  #makeSequence(index: number, contextLength: number): Sequence {
    const { textStream, ...rest } = this.#options;
    return new Sequence({
      ...rest,
      id: this.sequenceId + index,
      contextLength,
      ...(textStream ? { textStream: textStream() } : {}),
    });
  }

  #beamCompletions(search: BeamSearch): Completion[] {
    if (this.state === "finished")
      return search.results.map(({ tokens, score, endedByEos }, index) => {
        const atContext = tokens.length < this.#options.maxNewTokens;
        const finishReason = endedByEos ? "eos" : atContext ? "context" : "length";
        return {
          index,
          tokens,
          text: this.#text(endedByEos ? tokens.slice(0, -1) : tokens),
          finishReason,
          score,
        };
      });
    const finishReason = this.state === "aborted" ? "aborted" : this.state === "failed" ? "error" : null;
    return search.running.map((tokens, index) => ({ index, tokens, text: this.#text(tokens), finishReason }));
  }

  #text(tokens: readonly number[]): string {
    const stream = this.#options.textStream?.();
    if (!stream) return "";
    return tokens.map((token) => stream.push(token)).join("") + stream.end();
  }
}

function completionOf({ index, sequence, finishReason }: Branch): Completion {
  const { tokens, promptLength, text } = sequence!;
  return { index, tokens: tokens.slice(promptLength), text, finishReason };
}

const eosIdsOf = ({ eosIds, ignoreEos }: RequestOptions): ReadonlySet<number> =>
  new Set(ignoreEos ? [] : eosIds);

function validate({ n = 1, beams = 1, priority = 0, sampling, stops = [] }: RequestOptions): void {
  const isWidth = (value: number) => Number.isInteger(value) && value >= 1 && value <= MAX_WIDTH;
  want("n", n, isWidth(n), `an integer from 1 to ${MAX_WIDTH}`);
  want("beams", beams, isWidth(beams), `an integer from 1 (off) to ${MAX_WIDTH}`);
  want("priority", priority, Number.isFinite(priority), "a finite number; lower ones come first");
  if (beams === 1) return;
  want("n", n, n === 1, "1 with beams: a search gives as many sequences as it has beams");
  const { temperature, repetitionPenalty = 1 } = sampling;
  want("temperature", temperature, temperature === 0, "0 with beams: a search does not sample");
  want("repetitionPenalty", repetitionPenalty, repetitionPenalty === 1, "1 with beams, which have none");
  if (stops.length > 0)
    throw new BadInput(
      `${stops.length} stop strings are given with beams, which have none: leave one of the two out`,
    );
}

function want(name: string, value: number, condition: boolean, wanted: string): void {
  if (!condition) throw new BadInput(`${name} is ${value}; it must be ${wanted}`);
}
