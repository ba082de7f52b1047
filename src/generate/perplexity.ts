import { BadInput } from "../check.ts";
import type { KvCache } from "../kv/cache.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import { DEFAULT_PREFILL_CHUNK } from "../model/prefill.ts";
import { gatherRows } from "../ops/gather-rows.ts";
import { scope, Tensor } from "../tensor.ts";

/** One window: `count` predictions, and the sum of their negative log likelihoods in nats. */
export interface Window {
  /** Place of the window's first token in the text. */
  readonly start: number;
  readonly count: number;
  readonly nll: number;
}

export interface PerplexityOptions {
  /** Tokens that a window computes. Default: the model's context length. */
  readonly windowLength?: number;
  /** Tokens between the starts of two windows. Default: windowLength, so that windows do not overlap. */
  readonly stride?: number;
  /** Windows to compute at most. */
  readonly maxWindows?: number;
  /** Most rows of a window that are computed at once; a cache that forgets has to compute a window whole. */
  readonly prefillChunk?: number;
  readonly signal?: AbortSignal;
  readonly onWindow?: (window: Window, done: number, total: number) => void;
}

export interface PerplexityResult {
  readonly windows: readonly Window[];
  /** Predicted tokens. */
  readonly count: number;
  /** Nats per predicted token. */
  readonly meanNll: number;
  /** e^meanNll. */
  readonly perplexity: number;
}

/** Rows of logits that are computed and read back at a time: V · 64 · 4 bytes, 13 MB for GPT-2's vocabulary. */
const LOGIT_ROWS = 64;

/**
 * Perplexity of a text of token ids: exp(−mean log p(token | tokens before it in its window)).
 *
 * A window computes `windowLength` tokens from its start and predicts the token after each of them. Windows begin every
 * `stride` tokens; where they overlap, only predictions that no window has made yet count, so that with a smaller stride
 * each is made from more context. The first token of the text is never predicted. Throws BadInput on fewer than two ids
 * and on ids that the model does not know.
 */
export async function perplexity(
  model: Gpt2,
  cache: KvCache,
  ids: readonly number[],
  options: PerplexityOptions = {},
): Promise<PerplexityResult> {
  const { contextLength, vocabSize } = model.config;
  const length = options.windowLength ?? contextLength;
  const stride = options.stride ?? length;
  const chunk = cache.remembers ? (options.prefillChunk ?? DEFAULT_PREFILL_CHUNK) : length;
  if (ids.length < 2)
    throw new BadInput(
      `perplexity: the text has ${ids.length} tokens; at least 2 are needed to predict one from the other`,
    );
  // The last id is only predicted, never computed: no kernel would refuse it.
  const unknown = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
  if (unknown >= 0)
    throw new BadInput(
      `perplexity: token id ${ids[unknown]}, token ${unknown + 1} of the text, is out of vocabulary (0..${vocabSize - 1})`,
    );
  if (length < 1 || length > contextLength)
    throw new BadInput(`--window is ${length}; wanted 1 to the model's context of ${contextLength}`);
  if (stride < 1 || stride > length)
    throw new BadInput(`--stride is ${stride}; wanted 1 to the window of ${length}`);

  const starts: number[] = [];
  for (let start = 0; start === 0 || start - stride + length < ids.length - 1; start += stride)
    starts.push(start);
  const wanted = starts.slice(0, options.maxWindows);
  const windows: Window[] = [];
  // A cache that the device had no room for is known only now.
  await model.gpu.settle();
  let predicted = 1; // tokens of the text that are predicted or need not be: the first
  for (const start of wanted) {
    if (options.signal?.aborted) break;
    const inputs = ids.slice(start, Math.min(start + length, ids.length - 1));
    const firstRow = predicted - start - 1;
    const targets = ids.slice(predicted, start + inputs.length + 1);
    const nll = await windowNll(model, cache, inputs, firstRow, targets, chunk);
    predicted += targets.length;
    const window = { start, count: targets.length, nll };
    windows.push(window);
    options.onWindow?.(window, windows.length, wanted.length);
  }
  const count = windows.reduce((n, w) => n + w.count, 0);
  const meanNll = windows.reduce((s, w) => s + w.nll, 0) / count;
  return { windows, count, meanNll, perplexity: Math.exp(meanNll) };
}

/** −Σ log p of `targets`, the first of which follows row `firstRow` of the window; the window in pieces of up to `chunk` rows. */
async function windowNll(
  model: Gpt2,
  cache: KvCache,
  inputs: readonly number[],
  firstRow: number,
  targets: readonly number[],
  chunk: number,
): Promise<number> {
  const place = cache.open();
  const scratch = { rows: Math.min(chunk, inputs.length), samples: 0 };
  try {
    let nll = 0;
    for (let start = 0; start < inputs.length; start += chunk) {
      const tokens = inputs.slice(start, start + chunk);
      const skipped = Math.min(tokens.length, Math.max(0, firstRow - start));
      const first = start + skipped - firstRow;
      const here = targets.slice(Math.max(0, first), Math.max(0, start + tokens.length - firstRow));
      const hidden = model.hidden(cache, [{ place, tokens }], undefined, scratch);
      try {
        for (let i = 0; i < here.length; i += LOGIT_ROWS)
          nll = await subtractLogs(model, hidden, skipped + i, here.slice(i, i + LOGIT_ROWS), nll);
      } finally {
        hidden.free();
      }
    }
    return nll;
  } finally {
    cache.close(place);
  }
}

/** `nll` less log p of `targets`, which follow the rows of `hidden` from `first` on. */
async function subtractLogs(
  model: Gpt2,
  hidden: Tensor,
  first: number,
  targets: readonly number[],
  nll: number,
): Promise<number> {
  const logits = logitsOfRows(model, hidden, first, targets.length);
  try {
    const values = await logits.read();
    // One sum over the whole window: its pieces must not change a bit of it.
    return targets.reduce(
      (sum, target, r) =>
        sum - logProbability(values.subarray(r * logits.cols, (r + 1) * logits.cols), target),
      nll,
    );
  } finally {
    logits.free();
  }
}

function logitsOfRows(model: Gpt2, hidden: Tensor, first: number, count: number): Tensor {
  return scope(model.gpu, () => {
    const numbers = Array.from({ length: count }, (_, i) => first + i);
    const rows = Tensor.from(model.gpu, [count], numbers, { dtype: "u32", purpose: "tables", label: "rows" });
    return model.head(gatherRows(hidden, rows));
  });
}

/** log softmax(logits)[target], in float64. */
export function logProbability(logits: Float32Array, target: number): number {
  let largest = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) largest = Math.max(largest, logits[i]!);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - largest);
  return logits[target]! - largest - Math.log(sum);
}
