import { check } from "../check.ts";
import { type KvCache, remembers, sum } from "../kv/cache.ts";
import type { Tensor } from "../tensor.ts";
import type { BatchItem } from "./batch.ts";
import type { Gpt2 } from "./gpt2.ts";

// Prompts in pieces, so that what a step takes is bounded by the piece and not by the prompt.

/**
 * Rows of a piece, if nobody says: eight prompts of GPT-2's whole context. Pieces of a quarter of that took 1.4 times as long on an
 * H200, whose 132 processors have work for few tiles of such a product; and activations stay within those of a batch: 132 MiB for
 * GPT-2 small with f16 weights, 192 MiB with f32.
 */
export const DEFAULT_PREFILL_CHUNK = 8192;

/**
 * Cut a batch of `counts` new tokens into pieces, each the number of tokens of each sequence. All but the last have at most `chunk`
 * rows; the last ends every sequence, so that logits are wanted of it alone: it has at most `chunk` rows too, unless there are more
 * sequences than that. Tokens of a sequence stay in order.
 */
export function cutPrefill(counts: readonly number[], chunk: number): number[][] {
  check(chunk >= 1, () => `prefill: pieces of ${chunk} tokens; wanted at least 1`);
  const left = [...counts];
  const pieces: number[][] = [];
  let ahead = sum(counts) - Math.max(chunk, counts.length);
  while (ahead > 0) {
    let room = Math.min(chunk, ahead);
    ahead -= room;
    pieces.push(
      left.map((count, s) => {
        // The last token of a sequence is for the last piece.
        const taken = Math.min(room, count - 1);
        left[s] = count - taken;
        room -= taken;
        return taken;
      }),
    );
  }
  return [...pieces, left];
}

/**
 * The logits after the last new token of each sequence, [S, V] f32, as Gpt2.forward gives them and bit for bit the same, computed in
 * pieces of up to `chunk` rows. A cache that forgets has to see a whole sequence at once: then there is one piece. Throws
 * OutOfPages or BadInput before anything is computed when the cache has no room for all.
 */
export function prefill(
  model: Gpt2,
  cache: KvCache,
  items: readonly BatchItem[],
  chunk = DEFAULT_PREFILL_CHUNK,
): Tensor {
  const counts = items.map(({ tokens }) => tokens.length);
  const pieces = remembers(cache) ? cutPrefill(counts, chunk) : [counts];
  if (!remembers(cache) || pieces.length === 1) return model.forward(cache, items);
  items.forEach(({ place }, s) => {
    cache.reserve(place, counts[s]!);
  });
  const scratch = { rows: Math.max(...pieces.map(sum)), samples: items.length };
  const done = counts.map(() => 0);
  const itemsOf = (piece: readonly number[]) =>
    items.flatMap(({ place, tokens, prompt = tokens.length }, s) => {
      const count = piece[s]!;
      if (count === 0) return [];
      const start = done[s]!;
      done[s] = start + count;
      const ofPrompt = Math.max(0, Math.min(prompt - start, count));
      return [{ place, tokens: tokens.slice(start, start + count), prompt: ofPrompt }];
    });
  for (const piece of pieces.slice(0, -1)) model.fill(cache, itemsOf(piece), scratch);
  return model.forward(cache, itemsOf(pieces.at(-1)!), undefined, scratch);
}
