import { BadInput, check } from "../check.ts";
import type { KvSpace } from "../kv/kv-space.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import { streamAfter } from "../tokenizer.ts";
import { EngineCore } from "./engine-core.ts";
import type { EngineListener } from "./engine-events.ts";
import type { EngineMemory } from "./engine-memory.ts";
import { type EngineParts, openParts } from "./engine-open.ts";
import { Outbox } from "./engine-outbox.ts";
import type { EngineSettings } from "./engine-settings.ts";
import type {
  EngineEvent,
  EngineMetrics,
  EngineOptions,
  GenerationOptions,
  PromptOutput,
  RequestOptions,
  RequestOutput,
} from "./engine-types.ts";

/**
 * Many sequences on one model and one KV cache: requests come at any time, wait, run together a step at a time, and finish.
 *
 * `generate` drives the engine as long as one of its prompts is open. Whoever submits requests calls `step` or `run`. Several may do
 * so at once: there is one step, and all wait for it.
 */
export class Engine {
  readonly settings: EngineSettings;
  /** What the start found room for. */
  readonly memory: EngineMemory;
  /** Who has which slots, for page maps and fragmentation; only to be looked at. */
  readonly space: KvSpace;
  readonly #parts: EngineParts;
  readonly #core: EngineCore;
  /** Of the loops of `generate`. */
  readonly #outboxes = new Set<Outbox>();
  /** The step in progress. */
  #stepping: Promise<boolean> | undefined;
  /** Steps for the loops of `generate`. */
  #driving = false;
  #closing: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;

  /**
   * Take the memory for keys and values, and for the steps of `model`.
   * Throws BadInput on options that cannot be and on a budget too small for one page, OutOfMemory.
   */
  static async open(model: Gpt2, options: EngineOptions = {}): Promise<Engine> {
    return new Engine(await openParts(model, options));
  }

  /** For tests, which bring a device of their own; see `open`. */
  constructor(parts: EngineParts) {
    this.#parts = parts;
    this.#core = new EngineCore(parts);
    this.settings = parts.settings;
    this.memory = parts.memory;
    this.space = parts.space;
  }

  /** Seconds since the engine was opened: the clock of all times that it tells. */
  get now(): number {
    return this.#core.now;
  }

  /** Requests that are not over. */
  get open(): number {
    return this.#core.open;
  }

  /**
   * Put a request into the queue, to be run by `step`: its id. Without eosIds it has the model's, without a textStream the
   * tokenizer's. Throws BadInput with the reason when it can never run, and what made the engine fail after that.
   */
  submit(options: RequestOptions): number {
    return this.#submit(options);
  }

  /** End a request wherever it is; what it has is told by the event "aborted", and to its `generate`. False if it is over. */
  abort(id: number): boolean {
    return this.#core.abort(id);
  }

  /**
   * Continue every prompt; yields each when it is finished. Sequences are numbered from `sequenceId` on, prompt by prompt. Whoever
   * leaves the loop early aborts the rest; when the signal is set, the rest is aborted and yielded as far as it came.
   * Throws BadInput before anything runs, and what a step throws, after the prompts that were finished before.
   */
  async *generate(
    prompts: readonly (readonly number[] | string)[],
    options: GenerationOptions,
    signal?: AbortSignal,
  ): AsyncGenerator<PromptOutput, void, undefined> {
    const outbox = new Outbox();
    const indexOf = new Map<number, number>();
    const abortAll = () => this.#core.abortAll(indexOf.keys());
    this.#outboxes.add(outbox);
    try {
      for (const [i, prompt] of prompts.entries()) {
        const id = this.#submit(this.#requestOf(prompt, i, options), (output) => outbox.put(output));
        indexOf.set(id, i);
      }
      if (signal?.aborted) abortAll();
      signal?.addEventListener("abort", abortAll);
      while (indexOf.size > 0) {
        void this.#drive();
        const output = await outbox.next();
        const promptIndex = indexOf.get(output.id)!;
        indexOf.delete(output.id);
        yield { ...output, promptIndex };
      }
    } finally {
      this.#outboxes.delete(outbox);
      signal?.removeEventListener("abort", abortAll);
      // Nobody waits for them any more.
      for (const id of indexOf.keys()) this.#core.waiters.delete(id);
      abortAll();
    }
  }

  /**
   * Run a step, or wait for the one that runs. False when there is nothing left to do.
   * Rejects with OutOfMemory, DeviceLost and the like; the engine is closed then.
   */
  step(): Promise<boolean> {
    if (this.#failure) return Promise.reject(this.#failure.error);
    if (this.#closing) return Promise.resolve(false);
    this.#stepping ??= this.#step().finally(() => {
      this.#stepping = undefined;
    });
    return this.#stepping;
  }

  /** Step until nothing is left to do, or the signal is set. */
  async run(signal?: AbortSignal): Promise<void> {
    while (!signal?.aborted && (await this.step()));
  }

  /**
   * Call `listener` with every event from now on, of `types` if given (tokens are many); the function returned ends that. What it throws is a failure of the step, and of
   * `submit`, `abort` and `close` where they tell the event: then that request is not run, that one is aborted, and the memory given back.
   */
  on(listener: EngineListener, types?: readonly EngineEvent["type"][]): () => void {
    return this.#core.events.on(listener, types);
  }

  metrics(): EngineMetrics {
    return this.#core.metrics();
  }

  /** Abort what is left, wait for the GPU, and give all memory back. */
  close(): Promise<void> {
    this.#closing ??= this.#shutDown();
    return this.#closing;
  }

  async #shutDown(): Promise<void> {
    try {
      this.#core.abortAll();
    } finally {
      // It waits for tokens that are on their way, and then finds nothing to do.
      await this.#stepping?.catch(() => {});
      await this.#core.close();
    }
  }

  async #step(): Promise<boolean> {
    try {
      return await this.#core.step();
    } catch (error) {
      this.#failure = { error };
      // A close that waits for this step gives the memory back itself.
      this.#closing ??= this.#core.close();
      this.#closing.catch(() => {});
      for (const outbox of this.#outboxes) outbox.fail(error);
      throw error;
    }
  }

  /** Step as long as there is anything to do. One loop for all who wait; a failure is told to their outboxes. */
  async #drive(): Promise<void> {
    if (this.#driving) return;
    this.#driving = true;
    // Loops that begin at the same time come along.
    await null;
    try {
      // Somebody may have submitted between the end of the last step and now.
      while ((await this.step()) || !(this.#core.isIdle || this.#closing));
    } catch {
    } finally {
      this.#driving = false;
    }
  }

  /** `waiter` gets what there is of the request when it is over. */
  #submit(options: RequestOptions, waiter?: (output: RequestOutput) => void): number {
    if (this.#failure) throw this.#failure.error;
    check(!this.#closing, "engine: it is closed; open another one");
    const { tokenizer, vocabSize, eosIds } = this.#parts;
    const { prompt } = options;
    const foreign = prompt.find((id) => !(id >= 0 && id < vocabSize));
    if (foreign !== undefined)
      throw new BadInput(`prompt: token id ${foreign} is out of vocabulary (0..${vocabSize - 1})`);
    const textStream = tokenizer && (() => streamAfter(tokenizer, prompt, { skipSpecialTokens: true }));
    return this.#core.add({ eosIds, textStream, ...defined(options) }, waiter);
  }

  #requestOf(prompt: readonly number[] | string, index: number, options: GenerationOptions): RequestOptions {
    const { tokenizer } = this.#parts;
    const { temperature, topK, topP, minP, repetitionPenalty, seed, ...request } = options;
    const { n = 1, sequenceId = 0 } = request;
    if (typeof prompt === "string" && !tokenizer)
      throw new BadInput(`prompt ${index} is a text; give token ids, or open the engine with a tokenizer`);
    return {
      ...request,
      prompt: typeof prompt === "string" ? tokenizer!.encode(prompt) : prompt,
      sampling: { temperature, topK, topP, minP, repetitionPenalty, seed },
      sequenceId: sequenceId + index * n,
    };
  }
}

/** Without the fields that are undefined, so that they hide no defaults. */
function defined(options: RequestOptions): RequestOptions {
  return Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== undefined),
  ) as unknown as RequestOptions;
}
