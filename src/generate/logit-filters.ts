// Which tokens top-k and top-p leave, without sorting a whole vocabulary where that can be avoided.

/** The k-th largest of `values`, 1 <= k <= length. Reorders `values`. Hoare's selection, O(n) on average. */
export function kthLargest(values: Float64Array, k: number): number {
  const target = values.length - k;
  let low = 0;
  let high = values.length - 1;
  while (low < high) {
    const pivot = values[(low + high) >>> 1]!;
    let i = low;
    let j = high;
    while (i <= j) {
      while (values[i]! < pivot) i++;
      while (values[j]! > pivot) j--;
      if (i > j) break;
      const swap = values[i]!;
      values[i++] = values[j]!;
      values[j--] = swap;
    }
    // Now [low, j] <= pivot <= [i, high], and what lies between them equals the pivot.
    if (target <= j) high = j;
    else if (target >= i) low = i;
    else break;
  }
  return values[target]!;
}

/**
 * Top-p (nucleus) filtering, in place: sets to zero the weights of the least likely tokens whose probabilities
 * together are at most 1 - topP. The most likely token always stays.
 *
 * As Hugging Face's TopPLogitsWarper: walk the tokens from the least likely up and drop them while the running sum
 * is at most 1 - topP. Of equal tokens at the boundary the lower ids are dropped first, as a stable sort does.
 *
 * @param logWeights [V] log of `weights`, 0 for the most likely token; decides the order
 * @param weights [V] not normalised; 0 for tokens that are out already
 */
export function keepNucleus(logWeights: Float64Array, weights: Float64Array, topP: number): void {
  let total = 0;
  for (const weight of weights) total += weight;

  // Tokens at or below the floor are at most half of what may go, so they go without being sorted. This leaves
  // a few thousand of GPT-2's 50,257 tokens to sort.
  const floor = ((1 - topP) * total) / (2 * weights.length);
  const candidates = new Float64Array(weights.length);
  let count = 0;
  let dropped = 0;
  for (let id = 0; id < weights.length; id++) {
    if (weights[id]! > floor) {
      candidates[count++] = logWeights[id]!;
    } else {
      dropped += weights[id]! / total;
      weights[id] = 0;
    }
  }

  const ascending = candidates.subarray(0, count).sort();
  let first = 0; // the first that stays
  for (; first < count - 1; first++) {
    dropped += Math.exp(ascending[first]!) / total;
    if (dropped > 1 - topP) break;
  }
  const cutoff = ascending[first]!;
  let equalToDrop = 0;
  while (first - equalToDrop > 0 && ascending[first - equalToDrop - 1] === cutoff) equalToDrop++;

  for (let id = 0; id < weights.length; id++) {
    if (logWeights[id]! < cutoff) {
      weights[id] = 0;
    } else if (logWeights[id] === cutoff && equalToDrop > 0) {
      weights[id] = 0;
      equalToDrop--;
    }
  }
}
