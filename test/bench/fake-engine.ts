import type { ThroughputEngine } from "../../src/bench/throughput.ts";
import { BadInput } from "../../src/check.ts";
import type {
  EngineEvent,
  EngineMetrics,
  RequestOptions,
  RequestOutput,
  StepRecord,
} from "../../src/generate/engine-types.ts";

interface FakeRequest {
  readonly id: number;
  readonly options: RequestOptions;
  readonly submitted: number;
  admitted?: number;
  /** Prompt tokens that are computed. */
  computed: number;
  readonly tokenTimes: number[];
}

export interface FakeEngineShape {
  readonly maxSequences?: number;
  readonly maxBatchedTokens?: number;
  readonly slots?: number;
  readonly pageSize?: number;
  /** Longer sequences are refused. */
  readonly maxSeqLen?: number;
  /** Seconds of a step of so many tokens. */
  readonly stepSeconds?: (tokens: number) => number;
  /** Called before each step, from 1. */
  readonly beforeStep?: (step: number) => void;
}

const NO_METRICS: EngineMetrics = {
  running: 0,
  waiting: 0,
  kvUsage: 0,
  prefixQueries: 0,
  prefixHits: 0,
  preemptions: 0,
  recomputedTokens: 0,
  swappedPages: 0,
  steps: 0,
  computedTokens: 0,
  generatedTokens: 0,
  surplusTokens: 0,
  finished: 0,
  aborted: 0,
  timeToFirstToken: undefined,
  interTokenTime: undefined,
};

/**
 * An engine without a model: first come, first served, prompts in chunks, a token a step. Its clock runs by itself while nobody
 * steps, and goes on by `stepSeconds` with each step, which takes no time.
 */
export class FakeEngine implements ThroughputEngine {
  readonly submissions: RequestOptions[] = [];
  readonly #shape: FakeEngineShape;
  readonly #listeners = new Set<(event: EngineEvent) => void>();
  readonly #began = performance.now();
  #skipped = 0;
  #waiting: FakeRequest[] = [];
  #running: FakeRequest[] = [];
  #metrics = NO_METRICS;

  constructor(shape: FakeEngineShape = {}) {
    this.#shape = shape;
  }

  get now(): number {
    return this.#skipped + (performance.now() - this.#began) / 1e3;
  }
  get open(): number {
    return this.#waiting.length + this.#running.length;
  }
  metrics(): EngineMetrics {
    return this.#metrics;
  }
  on(listener: (event: EngineEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
  get listeners(): number {
    return this.#listeners.size;
  }

  submit(options: RequestOptions): number {
    const { maxSeqLen = 1024 } = this.#shape;
    if (options.prompt.length + options.maxNewTokens > maxSeqLen)
      throw new BadInput(`the request has more than ${maxSeqLen} tokens`);
    const id = this.submissions.push(options) - 1;
    this.#waiting.push({ id, options, submitted: this.now, computed: 0, tokenTimes: [] });
    return id;
  }

  async step(): Promise<boolean> {
    const { maxSequences = 8, maxBatchedTokens = 64, stepSeconds = (t) => 0.002 + t * 1e-5 } = this.#shape;
    this.#shape.beforeStep?.(this.#metrics.steps + 1);
    if (this.open === 0) return false;
    while (this.#waiting.length > 0 && this.#running.length < maxSequences) {
      const request = this.#waiting.shift()!;
      request.admitted = this.now;
      this.#running.push(request);
    }
    let tokens = 0;
    const sampling: FakeRequest[] = [];
    for (const request of this.#running) {
      const left = Math.max(1, request.options.prompt.length - request.computed);
      const taken = Math.min(left, maxBatchedTokens - tokens);
      if (taken === 0) break;
      tokens += taken;
      request.computed += taken;
      if (request.computed >= request.options.prompt.length) sampling.push(request);
    }
    const seconds = stepSeconds(tokens);
    this.#skipped += seconds;
    const time = this.now;
    for (const request of sampling) request.tokenTimes.push(time);
    const step = this.#record(seconds, tokens, sampling.length);
    for (const request of sampling.filter((r) => r.tokenTimes.length === r.options.maxNewTokens)) {
      this.#running = this.#running.filter((r) => r !== request);
      this.#emit({ type: "finished", id: request.id, time, output: outputOf(request, time) });
    }
    this.#emit({ type: "step", time, step, space: undefined as never });
    return true;
  }

  #record(seconds: number, tokens: number, sampled: number): StepRecord {
    const { slots = 2048, pageSize = 16 } = this.#shape;
    const lengths = this.#running.map((r) => r.computed);
    const used = lengths.reduce((a, b) => a + b, 0);
    const reserved = lengths.reduce((a, b) => a + Math.ceil(b / pageSize) * pageSize, 0);
    const m = this.#metrics;
    this.#metrics = {
      ...m,
      steps: m.steps + 1,
      computedTokens: m.computedTokens + tokens,
      generatedTokens: m.generatedTokens + sampled,
      prefixQueries: m.prefixQueries + tokens,
    };
    return {
      step: m.steps,
      seconds,
      hostSeconds: seconds / 5,
      tokens,
      sampled,
      running: this.#running.length,
      waiting: this.#waiting.length,
      preempted: 0,
      kv: { total: slots, reserved, used, logical: used },
    };
  }

  #emit(event: EngineEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}

function outputOf(
  { id, options, submitted, admitted, tokenTimes }: FakeRequest,
  finished: number,
): RequestOutput {
  return {
    id,
    promptTokens: options.prompt.length,
    cachedTokens: 0,
    completions: [{ index: 0, tokens: tokenTimes.map(() => 7), text: "", finishReason: "length" }],
    times: { submitted, admitted, firstToken: tokenTimes[0], finished },
    tokenTimes,
    preemptions: 0,
  };
}
