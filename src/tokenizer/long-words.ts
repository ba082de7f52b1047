/** One piece of a long word: merges the pairs of tokens that the vocabulary has, the most urgent first. */
export type WordMerger = (word: string) => string[];

/** A heap entry is rank · 2^32 + position: smaller is merged first, of equal ranks the leftmost. */
const POSITION_RANGE = 2 ** 32;
const NONE = -1;

/**
 * Byte-pair encoding of words of any length in O(n log n) with small constants, equal to the library's `bpe` (which
 * takes 10 s for a megabyte of spaces: it makes a JSON text and several objects for every pair it looks at).
 * `vocabulary` is token to id, `merges` the pairs of tokens in order of urgency.
 */
export function wordMerger(
  vocabulary: ReadonlyMap<string, number>,
  merges: readonly (readonly [string, string])[],
): WordMerger {
  const tokens: string[] = [];
  let idLimit = 0;
  for (const [token, id] of vocabulary) {
    tokens[id] = token;
    idLimit = Math.max(idLimit, id + 1);
  }
  const rankOfPair = new Map<number, number>();
  const resultOfRank: number[] = [];
  for (const [rank, [left, right]] of merges.entries()) {
    const ids = [left, right, left + right].map((token) => vocabulary.get(token) ?? NONE);
    resultOfRank.push(ids[2]!);
    if (!ids.includes(NONE)) rankOfPair.set(ids[0]! * idLimit + ids[1]!, rank);
  }

  return (word) => {
    const characters = Array.from(word);
    const count = characters.length;
    // Symbols of the word as a linked list: `ids[i]` begins at character i, NONE once it is merged into the one before.
    const ids = Int32Array.from(characters, (character) => vocabulary.get(character) ?? NONE);
    const next = Int32Array.from(ids, (_, i) => i + 1);
    const previous = Int32Array.from(ids, (_, i) => i - 1);
    const heap = minHeap(2 * count);
    const rankAt = (at: number): number | undefined => {
      const after = at < 0 ? count : next[at]!;
      if (after >= count || ids[at] === NONE || ids[after] === NONE) return undefined;
      return rankOfPair.get(ids[at]! * idLimit + ids[after]!);
    };
    const consider = (at: number): void => {
      const rank = rankAt(at);
      if (rank !== undefined) heap.push(rank * POSITION_RANGE + at);
    };
    for (let at = 0; at + 1 < count; at++) consider(at);
    for (let entry = heap.pop(); entry !== undefined; entry = heap.pop()) {
      const at = entry % POSITION_RANGE;
      const rank = (entry - at) / POSITION_RANGE;
      // An entry is stale when one of its two symbols has been merged since.
      if (rankAt(at) !== rank) continue;
      const gone = next[at]!;
      ids[at] = resultOfRank[rank]!;
      ids[gone] = NONE;
      next[at] = next[gone]!;
      if (next[at]! < count) previous[next[at]!] = at;
      consider(previous[at]!);
      consider(at);
    }
    const pieces: string[] = [];
    for (let at = 0; at < count; at = next[at]!) pieces.push(tokens[ids[at]!] ?? characters[at]!);
    return pieces;
  };
}

/** Numbers, smallest first. Holds at most `capacity` at a time. */
function minHeap(capacity: number) {
  const entries = new Float64Array(capacity);
  let size = 0;
  return {
    push(value: number): void {
      let at = size++;
      while (at > 0) {
        const parent = (at - 1) >> 1;
        if (entries[parent]! <= value) break;
        entries[at] = entries[parent]!;
        at = parent;
      }
      entries[at] = value;
    },
    pop(): number | undefined {
      if (size === 0) return undefined;
      const smallest = entries[0]!;
      const value = entries[--size]!;
      let at = 0;
      for (let child = 1; child < size; child = 2 * at + 1) {
        if (child + 1 < size && entries[child + 1]! < entries[child]!) child++;
        if (entries[child]! >= value) break;
        entries[at] = entries[child]!;
        at = child;
      }
      entries[at] = value;
      return smallest;
    },
  };
}
