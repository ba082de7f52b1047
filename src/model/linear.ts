import type { LayerKv } from "../kv/cache.ts";
import { matmul } from "../ops/matmul.ts";
import { matvec } from "../ops/matvec.ts";
import type { Epilogue } from "../ops/product.ts";
import type { Tensor } from "../tensor.ts";
import type { LinearWeights } from "./gpt2-weights.ts";

/**
 * Up to this many rows the matrix-vector form is faster: on a GPU weights are read from its cache again for each row,
 * and a product of 16 rows has too few blocks of 4 × 4 to fill it; a CPU computes four rows at once for the price of two.
 */
const MATVEC_ROWS = { gpu: 16, software: 1 };

/** The products with which a model's layers are computed. */
export interface Products {
  /** x [T, K] · weight [K, N] + bias, with an epilogue: [T, N] of `dtype`, f32 if not given. */
  linear(x: Tensor, weights: LinearWeights, epilogue?: Epilogue, dtype?: "f32" | "f16"): Tensor;
  /**
   * The product that gives query, key and value, which stores keys and values in their slots: the queries [T, C], f16 where
   * attention by tensor cores reads them. Without it `linear` gives all three [T, 3 · C].
   */
  qkv?(x: Tensor, weights: LinearWeights, slotMapping: Tensor, kv: LayerKv): Tensor;
  /** How rows are stored that only a product reads: f16 where it rounds them to halves anyway. */
  readonly rows: "f32" | "f16";
  /** Rows of a tile of attention, where the queries that `qkv` gives are for a kernel that has a size of its own. */
  readonly tileRows?: number;
}

/**
 * x [T, K] · weight [K, N] + bias [N], with an epilogue, in the form that suits the number of rows: [T, N]. Sums have the order of a
 * recorded decode step.
 */
export function linear(x: Tensor, { weight, bias }: LinearWeights, epilogue?: Epilogue): Tensor {
  const few = x.rows <= MATVEC_ROWS[x.gpu.forms];
  return few ? matvec(x, weight, bias, epilogue) : matmul(x, weight, bias, epilogue, { tier: "blocks" });
}

/** Products in f32 with the bits of a recorded decode step, in the form that suits the number of rows. */
export const PRODUCTS: Products = { linear, rows: "f32" };
