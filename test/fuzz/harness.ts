import { CheckpointError } from "../../src/formats/checkpoint-error.ts";
import { mutate } from "./mutate.ts";
import { type Random, randomOf } from "./random.ts";

/** A parser under fuzzing. */
export interface FuzzTarget {
  readonly name: string;
  /** Different error codes that a thousand cases meet at the least: less means that the mutations stay on the surface. */
  readonly minCodes: number;
  /** Sound inputs to start from. */
  readonly seeds: readonly Uint8Array[];
  /** Byte strings that mean something to this parser. */
  readonly words?: readonly Uint8Array[];
  /** A change that keeps the outer form sound (lengths, checksums), so that it reaches what lies within. */
  readonly mutateWithin?: (seed: Uint8Array, random: Random) => Uint8Array;
  /** Parse, and read what the parser has accepted. May throw CheckpointError and nothing else. */
  readonly parse: (bytes: Uint8Array) => unknown;
}

/** How the cases of one run ended. */
export interface FuzzResult {
  readonly accepted: number;
  /** Cases by error code. */
  readonly refused: ReadonlyMap<string, number>;
}

/**
 * Give `cases` mutated inputs to a parser. Throws at the first that does anything but return or throw a CheckpointError
 * of one line; the message holds the input and what makes it again.
 */
export async function fuzz(target: FuzzTarget, cases: number, seed: number): Promise<FuzzResult> {
  let accepted = 0;
  const refused = new Map<string, number>();
  for (let index = 0; index < cases; index++) {
    const input = fuzzCase(target, seed, index);
    const code = await outcome(target, input, `case ${index} of seed ${seed}`);
    if (code === undefined) accepted++;
    else refused.set(code, (refused.get(code) ?? 0) + 1);
  }
  return { accepted, refused };
}

/** The input of one case. */
export function fuzzCase(target: FuzzTarget, seed: number, index: number): Uint8Array {
  const random = randomOf(seed, index);
  const { seeds, words = [], mutateWithin } = target;
  const start = random.pick(seeds);
  if (mutateWithin === undefined) return mutate(start, { random, seeds, words });
  const within = random.below(4) === 0 ? start : mutateWithin(start, random);
  return within === start || random.below(8) === 0 ? mutate(within, { random, seeds, words }) : within;
}

async function outcome(target: FuzzTarget, input: Uint8Array, which: string): Promise<string | undefined> {
  try {
    await target.parse(input);
    return undefined;
  } catch (error) {
    const ours = error instanceof CheckpointError && error.message.startsWith(`${error.code}: `);
    if (ours && /^[A-Z][A-Z0-9_]+$/.test(error.code) && !error.message.includes("\n")) return error.code;
    const base64 = Buffer.from(input).toString("base64");
    throw new Error(`${target.name}: ${which} threw ${String(error)}\ninput (base64): ${base64}`, {
      cause: error,
    });
  }
}

/** One line per outcome, the most frequent first. */
export function summary(target: FuzzTarget, { accepted, refused }: FuzzResult): string {
  const codes = [...refused].sort((a, b) => b[1] - a[1]).map(([code, count]) => `  ${code} ${count}`);
  return [`${target.name}: accepted ${accepted}`, ...codes].join("\n");
}
