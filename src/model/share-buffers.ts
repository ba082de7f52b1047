// Which values of a step may lie in one buffer: those that never live at once.

/** A value in memory while launches `from` to `to` run, both included. */
export interface Lifetime {
  readonly bytes: number;
  readonly from: number;
  readonly to: number;
}

/** Buffers, largest first, and for each value the buffer in which it lies. */
export interface Sharing {
  readonly sizes: readonly number[];
  readonly bufferOf: readonly number[];
}

/**
 * Share buffers between values so that two that live at once never have the same. Large values choose first, so that small
 * ones move into what is there (Pisarchyk and Lee, Efficient Memory Management for Deep Neural Net Inference, 2020). Of the
 * buffers in which it meets nobody a value takes the smallest, or the largest: of the two ways the one that needs less.
 */
export function shareBuffers(values: readonly Lifetime[]): Sharing {
  const smallest = share(values, (free) => free.at(-1));
  const largest = share(values, (free) => free[0]);
  return sum(smallest.sizes) <= sum(largest.sizes) ? smallest : largest;
}

/** The most bytes that live at once: no sharing needs less. */
export function largestLiveSet(values: readonly Lifetime[]): number {
  // The sum only grows where a value begins.
  const liveAt = (launch: number) =>
    sum(values.filter(({ from, to }) => from <= launch && launch <= to).map(({ bytes }) => bytes));
  return values.reduce((most, { from }) => Math.max(most, liveAt(from)), 0);
}

export const overlaps = (a: Lifetime, b: Lifetime): boolean => a.from <= b.to && b.from <= a.to;

/** `choose` picks one of the buffers that are free for a value, largest first. */
function share(
  values: readonly Lifetime[],
  choose: (free: readonly number[]) => number | undefined,
): Sharing {
  const held: Lifetime[][] = [];
  const bufferOf = new Array<number>(values.length);
  // The sort is stable: values of one size stay in their order. A new buffer is never larger than those before it.
  const bySize = values.map((value, i) => ({ value, i })).sort((a, b) => b.value.bytes - a.value.bytes);
  for (const { value, i } of bySize) {
    const free = [...held.keys()].filter((b) => !held[b]!.some((other) => overlaps(value, other)));
    const buffer = choose(free) ?? held.push([]) - 1;
    held[buffer]!.push(value);
    bufferOf[i] = buffer;
  }
  return { sizes: held.map(([first]) => first!.bytes), bufferOf };
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((a, b) => a + b, 0);
}
