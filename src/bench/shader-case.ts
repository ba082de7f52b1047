import type { Gpu } from "../gpu/gpu.ts";
import type { Tensor } from "../tensor.ts";
import type { Tolerance } from "./shader-check.ts";
import type { ShaderInputs, Values } from "./shader-inputs.ts";

/** One kernel, in one variant, at one shape: what it costs at least, how to run it, and what must come out. */
export interface ShaderCase {
  readonly kernel: string;
  /** Storage of weights or of keys and values, then epilogue and constants where they are not the op's own choice. */
  readonly variant: string;
  readonly shape: string;
  /** Can it run on this device in reasonable time? Always, if not given. */
  readonly suits?: (gpu: Gpu) => boolean;
  /** Bytes of every input that the result depends on, each counted once. */
  readonly readBytes: number;
  /** Bytes of the result. */
  readonly writeBytes: number;
  /** Multiplications and additions of a product, or of attention's two; 0 where memory alone decides. */
  readonly flops: number;
  readonly tolerance: Tolerance;
  /** A new set of inputs, all of them in memory of their own. */
  prepare(inputs: ShaderInputs): PreparedCase;
}

export interface PreparedCase {
  /** Record the kernel once; new tensors, which the caller frees. */
  run(): readonly Tensor[];
  /** For each of these tensors, its elements in float64. */
  readonly expected: readonly Values[];
}

/** What the table of cases is made for: sizes of a model, and how many rows and tokens kernels are given. */
export interface BenchShape {
  readonly name: string;
  readonly channels: number;
  readonly heads: number;
  readonly vocabulary: number;
  /** Rows of the position table. */
  readonly positions: number;
  /** Rows of a decode step: of one sequence, and of a batch. */
  readonly fewRows: readonly [number, number];
  /** Rows of a short and of a long prefill. */
  readonly manyRows: readonly [number, number];
  /** Tokens that a decode step sees. */
  readonly contexts: readonly [number, number];
  /** What the rungs of matmul's ladder are given: rows of a block's products, and the side of a square product. */
  readonly ladder: { readonly rows: number; readonly square: number };
}

export const SHAPES = {
  "124m": {
    name: "GPT-2 124M",
    channels: 768,
    heads: 12,
    vocabulary: 50_257,
    positions: 1024,
    fewRows: [1, 16],
    manyRows: [64, 512],
    contexts: [100, 1000],
    ladder: { rows: 512, square: 4096 },
  },
  tiny: {
    name: "novels-en",
    channels: 192,
    heads: 3,
    vocabulary: 4096,
    positions: 1024,
    fewRows: [1, 4],
    manyRows: [16, 64],
    contexts: [20, 100],
    ladder: { rows: 16, square: 128 },
  },
} as const satisfies Record<string, BenchShape>;

export type ShapeName = keyof typeof SHAPES;
export const SHAPE_NAMES = Object.keys(SHAPES) as ShapeName[];
