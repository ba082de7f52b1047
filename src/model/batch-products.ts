import { matmulTransposed } from "../ops/matmul-transposed.ts";
import type { Epilogue } from "../ops/product.ts";
import type { Table } from "../ops/storage.ts";
import type { Tensor } from "../tensor.ts";
import type { LinearWeights } from "./gpt2-weights.ts";
import { linear } from "./linear.ts";

// The products of a step of many sequences: the one place that chooses their kernels. Whatever it chooses, it chooses it by
// device and weights and never by the number of rows, unless the bits of a row are the same: a token must not depend on
// who else is in the batch.

/** x [T, K] · weight [K, N] + bias, with an epilogue: [T, N]. matvec and matmul give a row the same bits. */
export function batchLinear(x: Tensor, weights: LinearWeights, epilogue?: Epilogue): Tensor {
  return linear(x, weights, epilogue);
}

/** Logits [S, V] of hidden states [S, C]. One row or several: each sum over C has the same order. */
export function batchHead(x: Tensor, head: Table): Tensor {
  return matmulTransposed(x, head);
}
