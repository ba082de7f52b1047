import type { KvSpace } from "../kv/kv-space.ts";
import type { Tokenizer } from "../tokenizer.ts";
import type { SamplingOptions } from "./sampler.ts";
import type { FinishReason, TextStream } from "./sequence.ts";

/** How the memory of keys and values is handed out. `pages` is PagedAttention; strips are what there was before, for comparison. */
export type KvLayout = "pages" | "strips-max" | "strips-exact";

/** What happens to a sequence that must make room: its keys and values are computed again later, or kept on the host. */
export type Preemption = "recompute" | "swap";

export interface EngineOptions {
  /** Default "pages". strips-max: every sequence gets `maxSeqLen` slots; strips-exact: just what it will need, known by an oracle. */
  readonly layout?: KvLayout;
  /** Storage of keys and values. Default "f32". */
  readonly kvDtype?: "f32" | "f16";
  /** Slots of a page. Default 16. */
  readonly pageSize?: number;
  /** Pages in the pool. Default: see kvBytes. */
  readonly kvPages?: number;
  /** Bytes for keys and values instead of kvPages. Default: what Gpu's memory budget leaves, else enough for 16 full contexts, at most 1 GiB. */
  readonly kvBytes?: number;
  /** Most tokens of a sequence. Default: the model's context. */
  readonly maxSeqLen?: number;
  /** Most sequences in a step. Default 256. */
  readonly maxSequences?: number;
  /** Most new tokens in a step. Default 2048, on the software adapter 256. */
  readonly maxBatchedTokens?: number;
  /** Prompts longer than what is left of a step's budget are cut. Default true. */
  readonly chunkedPrefill?: boolean;
  /** Default true; strips never share. */
  readonly prefixCache?: boolean;
  /** Default "recompute". */
  readonly preemption?: Preemption;
  /** Share of the pages that admission leaves free. Default 0.01. */
  readonly watermark?: number;
  /** Submit a step before the tokens of the one before are known. Default: on a GPU. Tokens do not depend on it. */
  readonly async?: boolean;
  /** Prompts may then be strings, and completions have text. */
  readonly tokenizer?: Tokenizer;
  /** Gets the lines that the start prints. Default: nobody. */
  readonly log?: (line: string) => void;
}

export interface RequestOptions {
  /** Ids, at least one. */
  readonly prompt: readonly number[];
  readonly sampling: SamplingOptions;
  readonly maxNewTokens: number;
  /** Samples from this one prompt; they share its pages. Default 1. */
  readonly n?: number;
  /** Beam search with so many beams instead of sampling (temperature must be 0, n 1). The beams come out best first. */
  readonly beams?: number;
  /** Lower ones first; equal ones first come, first served. Default 0. */
  readonly priority?: number;
  /** Requests share prefixes only with those of the same salt. Default "". */
  readonly salt?: string;
  /** Number of the first sequence among those of its seed; the others count on. Default 0. */
  readonly sequenceId?: number;
  readonly eosIds?: readonly number[];
  readonly ignoreEos?: boolean;
  readonly stops?: readonly string[];
  /** One for each sequence: decodes its tokens. Without it there is no text. */
  readonly textStream?: () => TextStream;
}

/** How Engine.generate continues its prompts: the sampler's settings, and all of RequestOptions that is no prompt's own. */
export interface GenerationOptions
  extends SamplingOptions,
    Omit<RequestOptions, "prompt" | "sampling" | "textStream"> {}

/** One of the n samples, or one beam. */
export interface Completion {
  readonly index: number;
  readonly tokens: readonly number[];
  readonly text: string;
  /** null before the end; "error" if there was no token to choose (see RequestOutput.error). */
  readonly finishReason: FinishReason | "aborted" | "error" | null;
  /** Beam search: the sum of log-probabilities over the number of tokens. */
  readonly score?: number;
}

/** Times in seconds since the engine was opened. */
export interface RequestTimes {
  readonly submitted: number;
  /** Undefined if it has not come so far. */
  readonly admitted?: number;
  readonly firstToken?: number;
  readonly finished?: number;
}

export interface RequestOutput {
  readonly id: number;
  readonly promptTokens: number;
  /** Prompt tokens whose keys and values were found in the prefix cache at the first admission. */
  readonly cachedTokens: number;
  readonly completions: readonly Completion[];
  readonly times: RequestTimes;
  /** Times at which its first sequence's tokens were known, the first one included. */
  readonly tokenTimes: readonly number[];
  readonly preemptions: number;
  /** Why it could not go on: logits that are no numbers. What came before is right. */
  readonly error?: string;
}

/** What Engine.generate yields. */
export interface PromptOutput extends RequestOutput {
  /** Which of the prompts. */
  readonly promptIndex: number;
}

export type EngineEvent =
  | { readonly type: "submitted"; readonly id: number; readonly time: number }
  | { readonly type: "admitted"; readonly id: number; readonly time: number; readonly cachedTokens: number }
  | {
      readonly type: "token";
      readonly id: number;
      /** Which of the request's sequences. */
      readonly index: number;
      readonly token: number;
      /** Text that it sets free. */
      readonly text: string;
      readonly time: number;
    }
  | { readonly type: "preempted"; readonly id: number; readonly time: number; readonly how: Preemption }
  | { readonly type: "finished"; readonly id: number; readonly time: number; readonly output: RequestOutput }
  | { readonly type: "aborted"; readonly id: number; readonly time: number; readonly output: RequestOutput }
  | { readonly type: "step"; readonly time: number; readonly step: StepRecord; readonly space: KvSpace };

/** What one step did and cost. */
export interface StepRecord {
  readonly step: number;
  /** Seconds from when the tokens of the step before were known, or from the end of a rest, until its own were. */
  readonly seconds: number;
  /** Of them the host was busy: taking the tokens before, telling events, scheduling, encoding. */
  readonly hostSeconds: number;
  readonly tokens: number;
  readonly sampled: number;
  /** Requests that had their place while the step ran, and that waited for one: as the scheduler left them when it planned the step. */
  readonly running: number;
  readonly waiting: number;
  readonly preempted: number;
  /** Slots at that time; see SpaceUsage. */
  readonly kv: {
    readonly total: number;
    readonly reserved: number;
    readonly used: number;
    readonly logical: number;
  };
}

export interface EngineMetrics {
  readonly running: number;
  readonly waiting: number;
  /** reserved / total slots. */
  readonly kvUsage: number;
  /** Prompt tokens of the requests admitted, and those of them found in the prefix cache: none where there is none. */
  readonly prefixQueries: number;
  readonly prefixHits: number;
  readonly preemptions: number;
  /** Tokens computed again because of a preemption. */
  readonly recomputedTokens: number;
  readonly swappedPages: number;
  readonly steps: number;
  readonly computedTokens: number;
  readonly generatedTokens: number;
  /** Sampled after their sequence had ended, because the host was a step ahead. */
  readonly surplusTokens: number;
  readonly finished: number;
  readonly aborted: number;
  /** Seconds; undefined before there is one. */
  readonly timeToFirstToken: Distribution | undefined;
  readonly interTokenTime: Distribution | undefined;
}

export interface Distribution {
  readonly count: number;
  readonly mean: number;
  readonly median: number;
  readonly p90: number;
  readonly p99: number;
}
