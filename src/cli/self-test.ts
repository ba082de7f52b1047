import {
  attentionOf,
  layernormOf,
  productOf,
  softmaxOf,
  transposedProductOf,
} from "../bench/shader-reference.ts";
import { uniform } from "../generate/random.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { narrowToHalf, widenHalf } from "../half.ts";
import { attention } from "../ops/attention.ts";
import { kvWrite } from "../ops/kv-write.ts";
import { layernorm } from "../ops/layernorm.ts";
import { matmul } from "../ops/matmul.ts";
import { matmulTransposed } from "../ops/matmul-transposed.ts";
import { matvec } from "../ops/matvec.ts";
import { pagedAttention } from "../ops/paged-attention.ts";
import { softmax } from "../ops/softmax.ts";
import { type Dtype, scope, Tensor } from "../tensor.ts";

/** One op of the self-test: how far its result is from the same in float64 loops. */
export interface SelfTestResult {
  readonly op: string;
  readonly shape: string;
  /** Largest absolute error; null when the op threw or gave something that is not a number. */
  readonly maxError: number | null;
  readonly allowed: number;
  readonly passed: boolean;
  /** What was thrown. */
  readonly problem: string | null;
}

interface Case {
  readonly op: string;
  readonly shape: string;
  /** Bound for the largest absolute error with inputs in (-1, 1), from the house document on numerics. */
  readonly allowed: number;
  /** The op under test; every tensor that it makes is freed by the caller. */
  readonly run: (gpu: Gpu) => Tensor;
  /** Element of the result, row-major, in float64. */
  readonly expected: (index: number) => number;
}

// Odd sizes on purpose: rows are padded to four elements, and padding is where a driver's mistakes show.
/** Tokens, T. */
const T = 5;
/** Depth and columns of a product, K and N. */
const K = 67;
const N = 33;
/** Heads, their size and the channels of all. */
const H = 2;
const D = 7;
const C = H * D;
/** Slots of a page, and the page that the tokens lie in. */
const PAGE_SIZE = 8;
const PAGE = 2;
const EPSILON = 1e-5;
const MATMUL_ERROR = 1e-4 * Math.sqrt(K / 768);

/**
 * Run a few kernels at small shapes and compare them with float64 loops. Never throws: an op that does is one that fails.
 * All memory is given back to the ledger.
 */
export async function selfTest(gpu: Gpu): Promise<SelfTestResult[]> {
  const results: SelfTestResult[] = [];
  for (const test of [...productCases(), ...rowCases(), ...attentionCases()])
    results.push(await runCase(gpu, test));
  return results;
}

/** Bytes that the ledger still holds beyond the params which a Gpu keeps for the next call; 0 when nothing leaks. */
export async function ledgerRest(gpu: Gpu): Promise<number> {
  await gpu.finish();
  gpu.memory.trim();
  const rest = gpu.memory.byLabel().filter(({ label }) => label !== "params");
  return rest.reduce((sum, { bytes }) => sum + bytes, 0);
}

async function runCase(gpu: Gpu, { op, shape, allowed, run, expected }: Case): Promise<SelfTestResult> {
  let result: Tensor | undefined;
  try {
    result = scope(gpu, () => run(gpu));
    const error = largestError(await result.read(), expected);
    const maxError = Number.isFinite(error) ? error : null;
    return { op, shape, maxError, allowed, passed: error <= allowed, problem: null };
  } catch (error) {
    return { op, shape, maxError: null, allowed, passed: false, problem: (error as Error).message };
  } finally {
    result?.free();
  }
}

function productCases(): Case[] {
  const x = numbers(1, T * K);
  const w = numbers(2, K * N);
  const half = widenHalf(narrowToHalf(w));
  const bias = numbers(3, N);
  const shape = `[${T}, ${K}] x [${K}, ${N}]`;
  const allowed = MATMUL_ERROR;
  const operands = (gpu: Gpu, dtype: Dtype): [Tensor, Tensor, Tensor] => [
    Tensor.from(gpu, [T, K], x),
    Tensor.from(gpu, [K, N], w, { dtype }),
    Tensor.from(gpu, [N], bias),
  ];
  const expected = (weights: Float32Array) => productOf({ x: at(x), w: at(weights), bias: at(bias) }, K, N);
  return [
    {
      op: "matmul, weights f32",
      shape,
      allowed,
      run: (gpu) => matmul(...operands(gpu, "f32")),
      expected: expected(w),
    },
    {
      op: "matvec, weights f16",
      shape,
      allowed,
      run: (gpu) => matvec(...operands(gpu, "f16")),
      expected: expected(half),
    },
    {
      op: "matmul-transposed",
      shape: `[${T}, ${K}] x [${N}, ${K}] transposed`,
      allowed,
      run: (gpu) => matmulTransposed(Tensor.from(gpu, [T, K], x), { blocks: [Tensor.from(gpu, [N, K], w)] }),
      expected: transposedProductOf(at(x), at(w), K, N),
    },
  ];
}

function rowCases(): Case[] {
  const x = numbers(4, T * K);
  const weight = numbers(5, K);
  const bias = numbers(6, K);
  const shape = `[${T}, ${K}]`;
  return [
    {
      op: "softmax",
      shape,
      allowed: 1e-6,
      run: (gpu) => softmax(Tensor.from(gpu, [T, K], x)),
      expected: softmaxOf(at(x), K),
    },
    {
      op: "layernorm",
      shape,
      allowed: 5e-5,
      run: (gpu) => {
        const norm = Tensor.from(gpu, [2, K], [...weight, ...bias]);
        return layernorm(Tensor.from(gpu, [T, K], x), norm, EPSILON);
      },
      expected: layernormOf(at(x), at(weight), at(bias), K, EPSILON),
    },
  ];
}

/** One sequence of T tokens that attend to themselves: in slots from 0 on, then in a page of its own. */
function attentionCases(): Case[] {
  const qkv = numbers(7, T * 3 * C);
  const part = (which: number) => (index: number) =>
    qkv[Math.floor(index / C) * 3 * C + which * C + (index % C)]!;
  const scale = 1 / Math.sqrt(D);
  const expected = attentionOf({
    qkv: at(qkv),
    k: part(1),
    v: part(2),
    heads: H,
    headSize: D,
    scale,
    visible: (row) => row + 1,
    slot: (_row, position) => position,
  });
  const shape = `${T} tokens, ${H} heads of ${D}`;
  const run = (gpu: Gpu, paged: boolean): Tensor => {
    const integers = (...values: number[]) => Tensor.from(gpu, [values.length], values, { dtype: "u32" });
    const first = paged ? PAGE * PAGE_SIZE : 0;
    const [k, v] = ["k", "v"].map(() => Tensor.empty(gpu, [(PAGE + 1) * PAGE_SIZE, H, D])) as [
      Tensor,
      Tensor,
    ];
    const input = Tensor.from(gpu, [T, 3 * C], qkv);
    kvWrite(input, integers(...Array.from({ length: T }, (_, t) => first + t)), k, v);
    const batch = {
      contextLens: integers(T),
      queryStarts: integers(0, T),
      sequenceOf: integers(...new Array<number>(T).fill(0)),
    };
    if (!paged) return attention(input, k, v, integers(0), batch, scale);
    const table = Tensor.from(gpu, [1, 1], [PAGE], { dtype: "u32" });
    return pagedAttention(input, k, v, table, PAGE_SIZE, batch, scale);
  };
  return [
    { op: "attention", shape, allowed: 1e-4, run: (gpu) => run(gpu, false), expected },
    { op: "paged-attention", shape, allowed: 1e-4, run: (gpu) => run(gpu, true), expected },
  ];
}

const at = (values: Float32Array) => (index: number) => values[index]!;

/** The same floats in (-1, 1) on every machine. */
function numbers(seed: number, length: number): Float32Array {
  return Float32Array.from({ length }, (_, i) => 2 * uniform(seed, 0, i) - 1);
}

/** NaN when there is one. */
function largestError(actual: Float32Array, expected: (index: number) => number): number {
  return actual.reduce((largest, value, i) => Math.max(largest, Math.abs(value - expected(i))), 0);
}
