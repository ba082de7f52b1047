import type { Holding } from "../kv/kv-space.ts";
import type { Request } from "./request.ts";
import type { FinishReason, Sequence } from "./sequence.ts";

/**
 * One sequence of a request: a sample, or a beam. Its tokens are, in this order: computed (`planned` of them), to be
 * computed, and `pending` ones that the GPU has chosen, or will, and the host does not know.
 */
export class Branch {
  readonly request: Request;
  /** Which of the request's sequences. */
  readonly index: number;
  /** Of a sampled branch: its tokens, text, and when it ends. Beams have none. */
  readonly sequence: Sequence | undefined;
  /** Of a beam: prompt and generated ids. */
  beamTokens: readonly number[];
  /** Unique in the scheduler. */
  owner = -1;

  holding: Holding | undefined;
  /** Tokens whose keys and values are there when the steps planned so far have run; of a swapped branch, on the host. */
  planned = 0;
  /** Tokens that were sampled by plans whose results have not come yet. */
  pending = 0;
  /** The last of them: sample `pendingSample` of plan `pendingPlan`. */
  pendingPlan = -1;
  pendingSample = -1;
  /** Tokens that the space was told of by `commit`. */
  committed = 0;
  /** Pages that lie on the host. */
  pagesOnHost = 0;
  /** Tokens that were computed before a preemption: computing them is doing it again. */
  computedBefore = 0;
  /** Tokens that the plan that is being made computes. */
  step = 0;
  /** When its last token was known; undefined before there is one. */
  tokenTime: number | undefined;
  /** Why it ended, if not by itself. */
  ended: "aborted" | "error" | null = null;

  constructor(request: Request, index: number, sequence: Sequence | undefined, prompt: readonly number[]) {
    this.request = request;
    this.index = index;
    this.sequence = sequence;
    this.beamTokens = sequence ? [] : prompt;
  }

  /** Ids known to the host. */
  get tokens(): readonly number[] {
    return this.sequence ? this.sequence.tokens : this.beamTokens;
  }

  /** Tokens, known and pending. */
  get length(): number {
    return this.tokens.length + this.pending;
  }

  get finishReason(): FinishReason | "aborted" | "error" | null {
    return this.sequence?.finishReason ?? this.ended;
  }

  /** Forget what was computed: it will be computed again, or found in the prefix cache. */
  reset(): void {
    this.computedBefore = Math.max(this.computedBefore, this.planned);
    this.planned = 0;
    this.committed = 0;
    this.pagesOnHost = 0;
  }
}
