import type { KvSpace } from "../kv/kv-space.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import type { EngineMemory } from "./engine-memory.ts";
import type { EngineSettings } from "./engine-settings.ts";
import type {
  EngineEvent,
  EngineMetrics,
  EngineOptions,
  GenerationOptions,
  PromptOutput,
  RequestOptions,
} from "./engine-types.ts";

/**
 * Many sequences on one model and one KV cache: requests come at any time, wait, run together a step at a time, and finish.
 *
 * Nothing runs by itself: `generate` drives the engine as long as it waits for one of its prompts; whoever submits
 * requests calls `step` or `run`. Several may do so at once, the step is one.
 */
export declare class Engine {
  readonly model: Gpt2;
  readonly settings: EngineSettings;
  /** Who has which slots, for page maps and fragmentation. */
  readonly space: KvSpace;
  /** What the start found room for. */
  readonly memory: EngineMemory;
  private constructor();

  /**
   * Take the memory for keys and values, and for the steps.
   * Throws BadInput on options that cannot be and on a budget too small for one page, OutOfMemory.
   */
  static open(model: Gpt2, options?: EngineOptions): Promise<Engine>;

  /** Seconds since the engine was opened: the clock of all times that it tells. */
  get now(): number;
  /** Requests that are not finished. */
  get open(): number;
  /** Put a request into the queue: its id. Throws BadInput with the reason when it can never run, and the step's error after one. */
  submit(request: RequestOptions): number;
  /** End a request wherever it is; what it generated is told by the event "aborted". False if it is not open any more. */
  abort(id: number): boolean;
  /**
   * Continue every prompt; yields each when it is finished. Whoever leaves the loop early aborts the rest; when the signal is
   * set, the rest is aborted too, and yielded as far as it came.
   */
  generate(
    prompts: readonly (readonly number[] | string)[],
    options: GenerationOptions,
    signal?: AbortSignal,
  ): AsyncGenerator<PromptOutput>;
  /** Run a step, or wait for the one that runs. False when there is nothing left to do. Rejects with OutOfMemory, DeviceLost, …; the engine is closed then. */
  step(): Promise<boolean>;
  /** Step until nothing is left to do, or the signal is set (it throws nothing then). */
  run(signal?: AbortSignal): Promise<void>;
  /** Call `listener` with every event from now on; the function returned ends that. */
  on(listener: (event: EngineEvent) => void): () => void;
  metrics(): EngineMetrics;
  /** Abort what is left, wait for the GPU, and give all memory back. */
  close(): Promise<void>;
}
