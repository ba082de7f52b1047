import type { KvCache, Place } from "../kv/cache.ts";
import type { BatchItem } from "../model/batch.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import type { PrefillCheck } from "./prefill-results.ts";

// Correct first: before a prefill is timed, the same prompts are computed in another way, and the logits compared. It is a check
// of batches, pages and chunks against one another; that the model is right is what test/model compares with golden files.

/**
 * Largest mean square error of logits between two ways, of the numerics that tests hold a whole GPT-2 to: f32 arithmetic, and
 * tensor cores, which round to halves.
 */
const NMSE_ALLOWED = { f32: 1e-9, f16: 1e-4 } as const;

/** Part of a prompt that the first of two chunks has: no multiple of a page or a tile. */
const FIRST_CHUNK = 0.37;

export interface OtherLogits {
  readonly against: string;
  /** [S, V]. */
  readonly logits: Float32Array;
}

/**
 * The prompts' logits in another way: in two chunks, the second of which sees the first in the cache; without a cache, or of one
 * token, one prompt after the other, and a lone one beside itself.
 */
export async function otherWay(
  model: Gpt2,
  cache: KvCache,
  prompts: readonly (readonly number[])[],
): Promise<OtherLogits> {
  const length = prompts[0]!.length;
  if (cache.remembers && length > 1) {
    const cut = Math.max(1, Math.floor(length * FIRST_CHUNK));
    const logits = await withPlaces(cache, prompts.length, async (places) => {
      const chunk = (begin: number, end: number) =>
        places.map((place, s): BatchItem => ({ place, tokens: prompts[s]!.slice(begin, end) }));
      model.forward(cache, chunk(0, cut)).free();
      return lastLogits(model, cache, chunk(cut, length));
    });
    return { against: `chunks of ${cut} and ${length - cut} tokens`, logits };
  }
  const { vocabSize } = model.config;
  const logits = new Float32Array(prompts.length * vocabSize);
  const copies = prompts.length === 1 ? 2 : 1;
  for (const [s, tokens] of prompts.entries()) {
    const alone = await withPlaces(cache, copies, (places) =>
      lastLogits(
        model,
        cache,
        places.map((place) => ({ place, tokens })),
      ),
    );
    logits.set(alone.subarray(0, vocabSize), s * vocabSize);
  }
  return { against: copies === 2 ? "the prompt beside itself" : "each prompt alone", logits };
}

async function lastLogits(model: Gpt2, cache: KvCache, items: readonly BatchItem[]): Promise<Float32Array> {
  const logits = model.forward(cache, items);
  try {
    return await logits.read();
  } finally {
    logits.free();
  }
}

async function withPlaces<T>(
  cache: KvCache,
  count: number,
  body: (places: readonly Place[]) => Promise<T>,
): Promise<T> {
  const places = Array.from({ length: count }, () => cache.open());
  try {
    return await body(places);
  } finally {
    for (const place of places) cache.close(place);
  }
}

/**
 * Compares logits [S, V] with those of the other way. Within the allowed error two argmax differ only where the likeliest two tokens
 * are a tie, so that is told and is no failure.
 */
export function sameLogits(
  logits: Float32Array,
  { against, logits: others }: OtherLogits,
  { config, weights }: Pick<Gpt2, "config" | "weights">,
): PrefillCheck & { readonly failure?: string } {
  const { vocabSize } = config;
  const sequences = logits.length / vocabSize;
  const { dtype } = weights.blocks[0]!.fc.weight;
  const allowed = NMSE_ALLOWED[dtype === "f16" ? "f16" : "f32"];
  let [squares, errors, finite] = [0, 0, true];
  logits.forEach((a, i) => {
    const b = others[i]!;
    finite &&= Number.isFinite(a) && Number.isFinite(b);
    squares += a * a;
    errors += (a - b) ** 2;
  });
  // All zeros are as wrong as a NaN.
  const nmse = squares > 0 ? errors / squares : 1;
  let equal = 0;
  for (let s = 0; s < sequences; s++) {
    const row = (values: Float32Array) => values.subarray(s * vocabSize, (s + 1) * vocabSize);
    if (argmax(row(logits)) === argmax(row(others))) equal++;
  }
  const failure = !finite
    ? "logits are not finite"
    : nmse > allowed
      ? `logits differ from those of ${against}: NMSE ${nmse.toExponential(1)}, allowed ${allowed.toExponential(0)}`
      : undefined;
  return {
    against,
    nmse: finite ? nmse : 1,
    nmse_allowed: allowed,
    argmax_equal: equal,
    sequences,
    ...(failure !== undefined && { failure }),
  };
}

function argmax(values: Float32Array): number {
  let best = 0;
  values.forEach((value, i) => {
    if (value > values[best]!) best = i;
  });
  return best;
}
