import { check } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import { shapeText, type Tensor } from "../tensor.ts";
import { type AttentionBatch, attentionArguments } from "./attention.ts";

const kernel = new Kernel("paged-attention");

/**
 * Causal attention of the queries in qkv [T, 3 · C] f32, or [T, C] of queries alone, over pages of keys and values; a new tensor
 * [T, C] f32.
 *
 * k and v are [pages · pageSize, H, D], f32 or f16; position p of sequence s is slot p mod pageSize of page
 * pageTable[s, p / pageSize] ([S, width] u32). In all else it is `attention`, and gives the same bits
 * (Kwon et al., Efficient Memory Management for Large Language Model Serving with PagedAttention, 2023).
 */
export function pagedAttention(
  qkv: Tensor,
  k: Tensor,
  v: Tensor,
  pageTable: Tensor,
  pageSize: number,
  batch: AttentionBatch,
  scale: number,
): Tensor {
  check(
    pageTable.rows === batch.contextLens.cols,
    () =>
      `paged-attention: the page table is ${shapeText(pageTable.shape)} but there are ${batch.contextLens.cols} sequences`,
  );
  const { y, buffers, params, workgroups, options } = attentionArguments(
    "paged-attention",
    qkv,
    k,
    v,
    batch,
    scale,
  );
  const paged = { ...params, page_size: pageSize, table_width: pageTable.cols };
  kernel.run(qkv.gpu, { ...buffers, page_table: pageTable }, paged, workgroups, options);
  return y;
}
