/** Reproducible choices. */
export interface Random {
  /** A whole number from 0 to limit - 1; 0 for a limit below 1. */
  below(limit: number): number;
  pick<T>(list: readonly T[]): T;
}

/** Choices that depend on the numbers given and on nothing else: a seed, the number of a case. */
export function randomOf(...numbers: readonly number[]): Random {
  let state = numbers.reduce((mixed, number) => mix(mixed ^ number), 0x9e3779b9);
  function next(): number {
    state = (state + 0x9e3779b9) | 0;
    return mix(state) >>> 0;
  }
  return {
    below: (limit) => (limit < 1 ? 0 : next() % limit),
    pick(list) {
      return list[next() % list.length] as (typeof list)[number];
    },
  };
}

/** A 32-bit finalizer (Murmur3's): every bit of the input reaches every bit of the output. */
function mix(value: number): number {
  let x = value | 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}
