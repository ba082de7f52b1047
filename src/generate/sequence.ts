import { BadInput, check } from "../check.ts";
import type { SamplingOptions } from "./sampler.ts";
import { validateSampling } from "./sampler.ts";
import { StopMatcher } from "./stop-strings.ts";

/**
 * Why a sequence ended: a stop string in its text, an end-of-sequence token, `maxNewTokens` reached, or the model's
 * context full. If several hold at one token, the first of this order is given.
 */
export type FinishReason = "eos" | "stop" | "length" | "context";

/** Turns ids into text, piece by piece: `push` gives the whole characters so far, `end` what is left. */
export interface TextStream {
  push(id: number): string;
  end(): string;
}

export interface SequenceOptions {
  /** Ids of the prompt: at least one, and fewer than `contextLength`. */
  prompt: readonly number[];
  /** Most tokens to generate; at least 1. */
  maxNewTokens: number;
  /** Most tokens, prompt and generated, that the model can see. */
  contextLength: number;
  sampling: SamplingOptions;
  /** Number of this sequence among those of one seed: it picks the random numbers, u32, 0 if not given. */
  id?: number;
  eosIds?: readonly number[];
  /** Go on after an eos token, which then is a token like any other. */
  ignoreEos?: boolean;
  /** Strings that end the text and are no part of it. They need a `textStream`. */
  stops?: readonly string[];
  /** Decodes the generated tokens; without it the sequence has no text. */
  textStream?: TextStream;
}

/**
 * The tokens of one request, how far they are computed, and when to end. It knows nothing of models and caches.
 *
 * A step computes tokens `computed` to `tokens.length` - 1 and calls `advance`; the token chosen from the last logits
 * goes to `accept`, until `finishReason` is not null.
 */
export class Sequence {
  readonly id: number;
  readonly promptLength: number;
  readonly maxNewTokens: number;
  readonly contextLength: number;
  readonly sampling: Readonly<SamplingOptions>;
  readonly #tokens: number[];
  readonly #eosIds: ReadonlySet<number>;
  readonly #textStream: TextStream | undefined;
  readonly #stopMatcher: StopMatcher;
  #computed = 0;
  #text = "";
  #finishReason: FinishReason | null = null;

  /** Throws BadInput on options that no sequence can have. */
  constructor(options: SequenceOptions) {
    validateSequence(options);
    this.id = options.id ?? 0;
    this.promptLength = options.prompt.length;
    this.maxNewTokens = options.maxNewTokens;
    this.contextLength = options.contextLength;
    this.sampling = { ...options.sampling };
    this.#tokens = [...options.prompt];
    this.#eosIds = new Set(options.ignoreEos ? [] : options.eosIds);
    this.#textStream = options.textStream;
    this.#stopMatcher = new StopMatcher(options.stops ?? []);
  }

  /** Prompt and generated ids; an eos token that ended the sequence is the last one. */
  get tokens(): readonly number[] {
    return this.#tokens;
  }

  /** Tokens generated so far; also the `step` of the next token's random number. */
  get generatedLength(): number {
    return this.#tokens.length - this.promptLength;
  }

  /** Tokens, from the first, whose keys and values are in the cache. */
  get computed(): number {
    return this.#computed;
  }

  /** Text emitted so far: of the generated tokens, without what is held back, without a stop string or eos. */
  get text(): string {
    return this.#text;
  }

  /** null while the sequence goes on. */
  get finishReason(): FinishReason | null {
    return this.#finishReason;
  }

  /** The next `count` tokens now have their keys and values in the cache. */
  advance(count: number): void {
    const left = this.#tokens.length - this.#computed;
    check(
      Number.isInteger(count) && count >= 0 && count <= left,
      () =>
        `sequence ${this.id}: advance(${count}); ${left} of ${this.#tokens.length} tokens are not computed`,
    );
    this.#computed += count;
  }

  /** Add the token that was chosen and find out whether it is the last. Returns the text that it sets free. */
  accept(token: number): string {
    if (this.#finishReason !== null)
      check(false, `sequence ${this.id}: token ${token} came after its end (${this.#finishReason})`);
    if (!isId(token)) check(false, `sequence ${this.id}: ${token} is not a token id`);
    this.#tokens.push(token);
    if (this.#eosIds.has(token)) return this.#finish("eos", "");

    let emit = "";
    if (this.#textStream) {
      const pushed = this.#stopMatcher.push(this.#textStream.push(token));
      emit = pushed.emit;
      if (pushed.stopped) return this.#finish("stop", emit);
    }
    if (this.generatedLength >= this.maxNewTokens) return this.#finish("length", emit);
    if (this.#tokens.length >= this.contextLength) return this.#finish("context", emit);
    if (emit !== "") this.#text += emit;
    return emit;
  }

  /** End, and emit what the decoder and the stop matcher still hold back: nothing after a stop string. */
  #finish(reason: FinishReason, emitted: string): string {
    const last = this.#stopMatcher.push(this.#textStream?.end() ?? "");
    const rest = this.#stopMatcher.end();
    const emit = emitted + last.emit + rest.emit;
    // A stop string may be complete only in that last text; an eos token still is the reason the model gave.
    this.#finishReason = reason !== "eos" && rest.stopped ? "stop" : reason;
    this.#text += emit;
    return emit;
  }
}

function validateSequence(options: SequenceOptions): void {
  const { prompt, maxNewTokens, contextLength, id = 0, stops = [], textStream } = options;
  validateSampling(options.sampling);
  refuseUnless(isId(id), `sequence id is ${id}; it must be an integer from 0 to 2^32 - 1`);
  refuseUnless(prompt.length > 0, "the prompt is empty; it must have at least one token");
  const notAnId = prompt.find((token) => !isId(token));
  refuseUnless(notAnId === undefined, `the prompt has ${notAnId}, which is not a token id`);
  refuseUnless(
    prompt.length < contextLength,
    `the prompt has ${prompt.length} tokens; a context of ${contextLength} leaves no room for a new one: ` +
      `shorten the prompt to ${contextLength - 1} tokens or fewer`,
  );
  refuseUnless(
    Number.isInteger(maxNewTokens) && maxNewTokens >= 1,
    `maxNewTokens is ${maxNewTokens}; it must be an integer of at least 1`,
  );
  refuseUnless(
    stops.length === 0 || textStream !== undefined,
    "stop strings need text; give the sequence a textStream, or no stops",
  );
}

function refuseUnless(condition: boolean, message: string): void {
  if (!condition) throw new BadInput(message);
}

function isId(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value < 2 ** 32;
}
