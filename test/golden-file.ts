import { fileURLToPath } from "node:url";
import { openCheckpoint } from "../src/formats/checkpoint.ts";
import { widenStored } from "../src/model/widen-stored.ts";

// Golden tensors, and how far others are from them, as plain figures. No test runner in here: the script for Deno uses it.

export const GOLDEN_FOLDER = fileURLToPath(new URL("golden/", import.meta.url));

/** How far values are from the golden ones; Infinity where one of them is not finite. */
export interface Difference {
  readonly maxAbs: number;
  /** Σ(a−b)²/Σa², a being the golden value. */
  readonly nmse: number;
}

/** The first place where two lists of ids differ; an id is undefined where its list has ended. */
export interface IdDifference {
  readonly index: number;
  readonly actual: number | undefined;
  readonly golden: number | undefined;
}

export function difference(actual: ArrayLike<number>, golden: ArrayLike<number>): Difference {
  if (actual.length !== golden.length)
    throw new Error(`${actual.length} values, and ${golden.length} golden ones`);
  let maxAbs = 0;
  let errors = 0;
  let energy = 0;
  for (let i = 0; i < golden.length; i++) {
    const error = Math.abs(actual[i]! - golden[i]!);
    if (!Number.isFinite(error)) return { maxAbs: Infinity, nmse: Infinity };
    maxAbs = Math.max(maxAbs, error);
    errors += error ** 2;
    energy += golden[i]! ** 2;
  }
  return { maxAbs, nmse: errors === 0 ? 0 : errors / energy };
}

export function firstDifference(actual: readonly number[], golden: readonly number[]): IdDifference | null {
  for (let i = 0; i < Math.max(actual.length, golden.length); i++)
    if (actual[i] !== golden[i]) return { index: i, actual: actual[i], golden: golden[i] };
  return null;
}

/** Mean over the rows of KL(softmax(golden) ‖ softmax(actual)) in nats, for logits [rows, columns]. */
export function meanKl(actual: Float32Array, golden: Float32Array, columns: number): number {
  let sum = 0;
  for (let begin = 0; begin < golden.length; begin += columns) {
    const p = logSoftmax(golden.subarray(begin, begin + columns));
    const q = logSoftmax(actual.subarray(begin, begin + columns));
    p.forEach((logP, i) => {
      sum += Math.exp(logP) * (logP - q[i]!);
    });
  }
  return sum / (golden.length / columns);
}

function logSoftmax(logits: Float32Array): number[] {
  const max = logits.reduce((a, b) => Math.max(a, b));
  const logSum = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - max), 0));
  return Array.from(logits, (logit) => logit - max - logSum);
}

/** The tensors of a golden file: F32 as floats, I32 as integers. */
export interface GoldenFile {
  readonly names: readonly string[];
  floats(name: string): Float32Array;
  integers(name: string): number[];
}

export async function readGolden(path: string): Promise<GoldenFile> {
  const file = await openCheckpoint(path);
  try {
    const values = new Map<string, Float32Array | Int32Array>();
    for (const [name, stored] of file.tensors) {
      const bytes = (await stored.read(0, stored.byteLength)).slice();
      values.set(
        name,
        stored.dtype === "I32" ? new Int32Array(bytes.buffer) : widenStored(bytes, stored.dtype),
      );
    }
    const find = (name: string) => {
      const found = values.get(name);
      if (!found) throw new Error(`${path}: no tensor ${name}`);
      return found;
    };
    return {
      names: [...values.keys()],
      floats: (name) => Float32Array.from(find(name)),
      integers: (name) => Array.from(find(name)),
    };
  } finally {
    await file.close();
  }
}
