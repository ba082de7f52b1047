// What a batch of `quire bench kv` is: the same prompt for every sequence, and lengths that differ, since with equal lengths
// strips of that length would do.
import { BadInput } from "../check.ts";
import { sum } from "../kv/cache.ts";

/** Lengths that differ. More would only cost time: with each that ends, the batch is recorded anew. */
const MOST_LENGTHS = 8;

/**
 * New tokens of each of `batch` sequences: all of them for the first, and less for those after it, in min(batch, 8) equal steps.
 * Of 50 tokens for 4 sequences: 50, 38, 25, 13.
 */
export function batchLengths(batch: number, newTokens: number): number[] {
  const lengths = Math.min(batch, MOST_LENGTHS);
  return Array.from({ length: batch }, (_, i) => {
    const shorter = Math.floor((i * lengths) / batch);
    return Math.ceil((newTokens * (lengths - shorter)) / lengths);
  });
}

/** Pages for every sequence at its full length, prompt included. */
export function poolPages(promptLength: number, lengths: readonly number[], pageSize: number): number {
  return sum(lengths.map((length) => Math.ceil((promptLength + length) / pageSize)));
}

/**
 * Pages that the batch cannot do without: the most that its sequences hold at once. They grow together, a token a step, and one
 * that ends gives its pages back. The last token of a sequence needs no slot.
 */
export function neededPages(promptLength: number, lengths: readonly number[], pageSize: number): number {
  // A batch is at its largest just before one of its sequences ends.
  const atEnds = lengths.map((length) => {
    const running = lengths.filter((other) => other >= length).length;
    return running * Math.ceil((promptLength + length - 1) / pageSize);
  });
  return Math.max(...atEnds);
}

/** Refuse a pool in which the batch could not finish, before it begins. Throws BadInput. */
export function checkPool(
  pages: number,
  promptLength: number,
  lengths: readonly number[],
  pageSize: number,
): void {
  const needed = neededPages(promptLength, lengths, pageSize);
  if (pages < needed)
    throw new BadInput(
      `--kv-pages is ${pages}; this run needs ${needed} pages of ${pageSize} slots for its ${lengths.length} sequences: ` +
        "raise it, leave it out, or lower --batch or --new-tokens",
    );
}
