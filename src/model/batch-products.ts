import type { CacheShape } from "../kv/cache.ts";
import { flashTile, hasMatrixAttention, MATRIX_TILE_ROWS } from "../ops/flash-attention.ts";
import { matrixQkv } from "../ops/kv-write.ts";
import { layernorm } from "../ops/layernorm.ts";
import { matmul, matrixMatmul } from "../ops/matmul.ts";
import { matmulTransposed, matrixMatmulTransposed } from "../ops/matmul-transposed.ts";
import { hasMatrixForm } from "../ops/matrix-form.ts";
import { rowStride, type Tensor } from "../tensor.ts";
import type { Gpt2 } from "./gpt2.ts";
import { PRODUCTS, type Products } from "./linear.ts";

// The kernels of prompts, and of steps of many sequences: the one place that chooses them. Whatever it chooses, it chooses it by
// device, weights and cache and never by the number of rows, unless the bits of a row are the same: a token must not depend
// on who else is in the batch, nor on how its prompt was cut into pieces.

/**
 * Products of a step of many sequences: with tensor cores and f16 weights always by these, one row too; else on a GPU always by
 * matmul, whose kernels of many outputs a thread sum in an order of their own; where a CPU plays GPU in that of a decode step.
 * Attention is that of a row, or by portable tiles, which give its bits: a step that decodes is bound by loads, and fastest
 * row by row, and a token must not change when it is computed again as part of a prompt.
 */
export function batchProducts({ gpu, config, weights }: Pick<Gpt2, "gpu" | "config" | "weights">): Products {
  // All matrices of a model are of one dtype.
  if (!hasMatrixForm(gpu, weights.blocks[0]!.fc.weight)) return gpu.forms === "software" ? PRODUCTS : MATMUL;
  return {
    linear: (x, { weight, bias }, epilogue, dtype) => matrixMatmul(x, weight, bias, epilogue, dtype),
    // A quad of columns must be of one head.
    ...(config.headSize % 4 === 0 ? { qkv: qkvOf("f32") } : {}),
    rows: "f16",
  };
}

/** Products of a prompt that is computed once, for a cache of this shape: those, and attention by tensor cores where it can be. */
export function promptProducts(model: Pick<Gpt2, "gpu" | "config" | "weights">, shape: CacheShape): Products {
  const products = batchProducts(model);
  const byMatrix = products.qkv !== undefined && hasMatrixAttention(model.gpu, shape);
  return byMatrix ? { ...products, qkv: qkvOf("f16"), tileRows: MATRIX_TILE_ROWS } : products;
}

/** Products in f32 by matmul alone, one row too. */
const MATMUL: Products = {
  linear: (x, { weight, bias }, epilogue) => matmul(x, weight, bias, epilogue),
  rows: "f32",
};

/** Queries in halves are for attention by tensor cores. */
const qkvOf =
  (dtype: "f32" | "f16"): Products["qkv"] =>
  (x, { weight, bias }, slotMapping, { k, v }) =>
    matrixQkv(x, weight, bias, slotMapping, k, v, dtype);

/** Rows of the tiles in which a batch with these products attends to a cache of this shape; undefined: row by row. */
export function tileRowsOf(
  { gpu }: Pick<Gpt2, "gpu">,
  { tileRows }: Products,
  shape: CacheShape,
): number | undefined {
  return tileRows ?? flashTile({ gpu, stride: rowStride(shape.headSize) })?.rows;
}

/** Logits [S, V] of hidden states [S, C] before the last layer norm. One row or several: each sum over C has the same order. */
export function batchHead({ gpu, config, weights }: Gpt2, x: Tensor): Tensor {
  const { head, lnF } = weights;
  const epsilon = config.layerNormEpsilon;
  // The kernel writes four columns at once, so each block of the table must begin at a multiple of four.
  const inQuads = head.blocks.slice(0, -1).every(({ rows }) => rows % 4 === 0);
  return inQuads && hasMatrixForm(gpu, head.blocks[0]!, true)
    ? matrixMatmulTransposed(layernorm(x, lnF, epsilon, "f16"), head)
    : matmulTransposed(layernorm(x, lnF, epsilon), head);
}
