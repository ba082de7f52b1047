import { matmul } from "../ops/matmul.ts";
import { matmulTransposed } from "../ops/matmul-transposed.ts";
import { hasMatrixForm } from "../ops/matrix-form.ts";
import type { Epilogue } from "../ops/product.ts";
import type { Table } from "../ops/storage.ts";
import type { Tensor } from "../tensor.ts";
import type { LinearWeights } from "./gpt2-weights.ts";
import { linear } from "./linear.ts";

// The products of a step of many sequences: the one place that chooses their kernels. Whatever it chooses, it chooses it by
// device and weights and never by the number of rows, unless the bits of a row are the same: a token must not depend on
// who else is in the batch.

/**
 * x [T, K] · weight [K, N] + bias, with an epilogue: [T, N]. With tensor cores and f16 weights, always by these, one row too;
 * else by matvec or matmul, which give a row the same bits.
 */
export function batchLinear(x: Tensor, weights: LinearWeights, epilogue?: Epilogue): Tensor {
  const { weight, bias } = weights;
  return hasMatrixForm(x.gpu, weight)
    ? matmul(x, weight, bias, epilogue, "matrix")
    : linear(x, weights, epilogue);
}

/** Logits [S, V] of hidden states [S, C]. One row or several: each sum over C has the same order. */
export function batchHead(x: Tensor, head: Table): Tensor {
  return matmulTransposed(x, head, canUseMatrices(head) ? "matrix" : "portable");
}

/** The kernel writes four columns at once, so each block of the table must begin at a multiple of four. */
function canUseMatrices({ blocks }: Table): boolean {
  const inQuads = blocks.slice(0, -1).every(({ rows }) => rows % 4 === 0);
  return inQuads && hasMatrixForm(blocks[0]!.gpu, blocks[0]!);
}
