import type { Gpu } from "../gpu/gpu.ts";
import { PURPOSES } from "../gpu/memory.ts";
import type { Tensor } from "../tensor.ts";
import type { PreparedCase, ShaderCase } from "./shader-case.ts";
import { type CheckResult, checkResult } from "./shader-check.ts";
import type { ShaderInputs } from "./shader-inputs.ts";
import { type KernelTime, timeKernel } from "./time-kernel.ts";

export interface MeasureOptions {
  /** Passes that are timed; the median counts. */
  readonly passes: number;
  /** Inputs are rotated until so many bytes were read, so that no cache holds them; 0 to use one set. */
  readonly rotateBytes: number;
}

/** A case that was checked, and timed when the check was passed. */
export interface MeasuredCase {
  readonly check: CheckResult;
  readonly inputSets: number;
  /** Null when the check failed. */
  readonly time: KernelTime | null;
  /** GPU memory that the case did not give back, without the params that a Gpu keeps; 0 unless there is a leak. */
  readonly leakedBytes: number;
}

/** Sets of inputs that a small kernel is given at most: more would only cost the host time. */
const MAX_SETS = 256;

/** How many sets of inputs a case rotates through. */
export function inputSetsFor(shader: ShaderCase, rotateBytes: number): number {
  return Math.min(MAX_SETS, Math.max(1, Math.ceil(rotateBytes / shader.readBytes)));
}

/**
 * Check one case against float64, then time it; free all that it took.
 *
 * The calls of a pass write the same buffers, so each waits for the one before it, as a model's kernels do: the time holds
 * the latency of a dependent dispatch.
 */
export async function measureShader(
  gpu: Gpu,
  inputs: ShaderInputs,
  shader: ShaderCase,
  { passes, rotateBytes }: MeasureOptions,
): Promise<MeasuredCase> {
  // The pool is emptied first, so that the check's result begins as zeros, not as the result of a case before it.
  const before = await settledBytes(gpu);
  const inputSets = inputSetsFor(shader, rotateBytes);
  let check: CheckResult;
  let time: KernelTime | null = null;
  try {
    const sets = Array.from({ length: inputSets }, () => shader.prepare(inputs));
    check = await checkShader(shader, sets[0]!);
    const record = () => {
      for (const set of sets) free(set.run());
    };
    if (check.ok) time = await timeKernel(gpu, record, inputSets, passes);
  } finally {
    inputs.release();
  }
  return { check, inputSets, time, leakedBytes: (await settledBytes(gpu)) - before };
}

/** Run a case once and compare each of its results; the worst of them is what is told. */
async function checkShader(shader: ShaderCase, { run, expected }: PreparedCase): Promise<CheckResult> {
  const results = run();
  try {
    const checks: CheckResult[] = [];
    for (const [i, tensor] of results.entries()) {
      const actual = tensor.dtype === "u32" ? await tensor.readIntegers() : await tensor.read();
      // A list of integers has one element a row.
      const rows = tensor.dtype === "u32" ? actual.length : tensor.rows;
      checks.push(checkResult(actual, rows, expected[i]!, shader.tolerance));
    }
    const worst = checks.find((c) => !c.ok) ?? checks.reduce((a, b) => (b.maxAbs! > a.maxAbs! ? b : a));
    const total = (count: (c: CheckResult) => number) => checks.reduce((sum, c) => sum + count(c), 0);
    return { ...worst, elements: total((c) => c.elements), compared: total((c) => c.compared) };
  } finally {
    free(results);
  }
}

function free(tensors: readonly Tensor[]): void {
  for (const tensor of tensors) tensor.free();
}

/** Bytes in use once all work is done and the pool is empty. Params stay with the Gpu, so their purpose is left out. */
async function settledBytes(gpu: Gpu): Promise<number> {
  await gpu.finish();
  gpu.memory.trim();
  const bytes = gpu.memory.currentByPurpose;
  return PURPOSES.filter((p) => p !== "tables").reduce((sum, p) => sum + bytes[p], 0);
}
