import process from "node:process";
import { afterAll, expect, vi } from "vitest";
import { Gpu } from "../src/gpu/gpu.ts";
import { PURPOSES } from "../src/gpu/memory.ts";
import { type Dtype, decode, Tensor, tensorBytes } from "../src/tensor.ts";

/**
 * The Gpu of a test file, closed after its last test.
 *
 * QUIRE_TEST_ADAPTER chooses the adapter as --adapter does ("auto" if unset), and QUIRE_TEST_KERNELS=portable keeps to
 * the kernels that need no optional feature, so that the same suite runs on any machine.
 */
export async function openTestGpu(): Promise<Gpu> {
  const { QUIRE_TEST_ADAPTER: adapter = "auto", QUIRE_TEST_KERNELS: kernels = "auto" } = process.env;
  if (kernels !== "auto" && kernels !== "portable")
    throw new Error(`QUIRE_TEST_KERNELS is "${kernels}"; wanted auto or portable`);
  const gpu = await Gpu.open({ adapter, kernels });
  afterAll(() => gpu.close());
  return gpu;
}

/** Bytes before and after every guarded tensor; bindings must begin at multiples of 256. */
const GUARD_BYTES = 256;

/**
 * The word that guards the n-th tensor: a signalling NaN as a float, which arithmetic would change; a NaN as either of its
 * halves; past the end of anything as an index. Each tensor has its own, so that a copy from guard to guard is seen too.
 */
const guardWord = (n: number): number => 0xffa5fc01 + (n % 1022);

/** What a kernel wrote. */
export interface Output {
  /** The elements as floats, without padding; integers are exact in `bits`. */
  readonly values: Float32Array;
  /** The tensor's bytes as words, padding included: equal words are equal bits. */
  readonly bits: Uint32Array;
  /** What every word of the tensor was before. */
  readonly guard: number;
}

/**
 * Run `body` while every tensor made in it, input or output, lies between guard words, and return what is in the one it
 * returns.
 *
 * Kernels are given the guard behind a tensor as part of the binding: a store past the end hits it instead of being
 * dropped, and a load past the end brings NaN into the result. A new tensor holds nothing but guard words, so an element
 * that no kernel wrote reads as NaN. Fails when a guard changed, or when the row padding is not zero. Frees all tensors.
 */
export async function withGuards(gpu: Gpu, body: () => Tensor): Promise<Output> {
  return (await withGuardsAll(gpu, () => [body()]))[0]!;
}

/** Like withGuards, for several outputs. With padding "any", it is left to the caller. */
export async function withGuardsAll(
  gpu: Gpu,
  body: () => readonly Tensor[],
  padding: "zero" | "any" = "zero",
): Promise<Output[]> {
  const made: Tensor[] = [];
  const empty = vi.spyOn(Tensor, "empty").mockImplementation((on, shape, { dtype = "f32" } = {}) => {
    expect(on).toBe(gpu);
    const tensor = guardedTensor(on, shape, dtype, guardWord(made.length));
    made.push(tensor);
    return tensor;
  });
  try {
    let outputs: readonly Tensor[];
    try {
      outputs = body();
    } finally {
      empty.mockRestore();
    }
    const results: Output[] = [];
    for (const tensor of outputs) {
      expect(made).toContain(tensor);
      results.push(await readGuarded(tensor, guardWord(made.indexOf(tensor)), padding));
    }
    return results;
  } finally {
    for (const tensor of made) tensor.free();
  }
}

function guardedTensor(gpu: Gpu, shape: readonly number[], dtype: Dtype, guard: number): Tensor {
  const bytes = tensorBytes(shape, dtype);
  const total = GUARD_BYTES + bytes + GUARD_BYTES;
  const allocation = gpu.memory.alloc(total, "activations", "guarded tensor");
  gpu.write({ allocation, offset: 0, bytes: total }, new Uint32Array(total / 4).fill(guard));
  const tensor = new Tensor(gpu, shape, dtype, allocation, GUARD_BYTES);
  return Object.assign(tensor, { bytes: bytes + GUARD_BYTES });
}

async function readGuarded(tensor: Tensor, guard: number, padding: "zero" | "any"): Promise<Output> {
  const { gpu, shape, dtype, allocation, rows, cols, stride } = tensor;
  const bytes = tensorBytes(shape, dtype);
  const raw = await gpu.read({ allocation, offset: 0, bytes: GUARD_BYTES + bytes + GUARD_BYTES });
  for (const [place, at] of [
    ["before", 0],
    ["after", GUARD_BYTES + bytes],
  ] as const) {
    const words = new Uint32Array(raw, at, GUARD_BYTES / 4);
    const touched = words.findIndex((word) => word !== guard);
    if (touched >= 0) expect.fail(`guard word ${touched} ${place} the tensor became ${words[touched]}`);
  }
  const bits = new Uint32Array(raw, GUARD_BYTES, bytes / 4);
  if (dtype === "u32") return { values: Float32Array.from(bits), bits, guard };
  const inner = raw.slice(GUARD_BYTES, GUARD_BYTES + bytes);
  const padded = decode(inner, dtype);
  const values = new Float32Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    values.set(padded.subarray(r * stride, r * stride + cols), r * cols);
    for (let c = cols; c < stride && padding === "zero"; c++)
      if (padded[r * stride + c] !== 0)
        expect.fail(`row ${r}: padding at column ${c} is ${padded[r * stride + c]}, wanted 0`);
  }
  return { values, bits, guard };
}

/** The bits of a tensor, padding included. */
export async function bitsOf(tensor: Tensor): Promise<Uint32Array> {
  return new Uint32Array(await tensor.gpu.read(tensor));
}

/** The same call, 20 times in one recording, gives the same bits. */
export async function expectSameBits(run: () => Tensor, times = 20): Promise<void> {
  const results = Array.from({ length: times }, run);
  const first = await bitsOf(results[0]!);
  for (const result of results) {
    expect(await bitsOf(result)).toEqual(first);
    result.free();
  }
}

/**
 * What `body` takes of the Gpu's memory it gives back: the ledger is where it started, but for the params that a Gpu keeps
 * for the next call, and after a second call it has not moved at all.
 */
export async function expectLedgerUnchanged(gpu: Gpu, body: () => void | Promise<void>): Promise<void> {
  const settled = async () => {
    await gpu.finish();
    gpu.memory.trim();
    return gpu.memory.currentByPurpose;
  };
  const start = await settled();
  await body();
  const once = await settled();
  await body();
  for (const purpose of PURPOSES.filter((p) => p !== "tables")) expect(once[purpose]).toBe(start[purpose]);
  expect(await settled()).toEqual(once);
}
