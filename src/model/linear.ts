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

/** A form of the product with which a model's layers can be computed. */
export type Linear = (x: Tensor, weights: LinearWeights, epilogue?: Epilogue) => Tensor;

/** x [T, K] · weight [K, N] + bias [N], with an epilogue, in the form that suits the number of rows: [T, N]. */
export function linear(x: Tensor, { weight, bias }: LinearWeights, epilogue?: Epilogue): Tensor {
  const few = x.rows <= MATVEC_ROWS[x.gpu.forms];
  return few ? matvec(x, weight, bias, epilogue) : matmul(x, weight, bias, epilogue);
}
