import { check } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import { shapeText, Tensor } from "../tensor.ts";
import { attentionForm, attentionWork, MAX_HEAD_SIZE } from "./attention.ts";
import { checkCache } from "./kv-write.ts";

const kernel = new Kernel("decode-attention");

/** Positions of a context that one workgroup attends to: CHUNK in attend-chunk.wgsl. */
export const CHUNK = 128;

/** Where the positions of a sequence lie in a cache. */
export interface SlotLookup {
  /** The shader part that knows. */
  readonly part: "slots-contiguous" | "slots-paged";
  /** u32: contiguous [S], the first slot of each strip; paged [S, width], the pages of each sequence in order. */
  readonly table: Tensor;
  /** Slots in a page; 1 when contiguous. */
  readonly pageSize: number;
}

/**
 * Attention of one new token a sequence over its context, in chunks of CHUNK positions; a new tensor of partial results
 * [S, H, chunks, D + 4] f32, chunks = ceil(maxContext / CHUNK), for `mergeAttention`. With it the result has the bits of
 * `attention` and `pagedAttention`.
 *
 * q is [S, C] f32, the queries alone; k and v are [slots, H, D], f32 or f16, D a multiple of 4; contextLens [S] u32, from 1 to
 * maxContext, the new tokens included. Of each chunk there are D values that are not yet normalised, the maximum that
 * they are relative to, their sum of weights and two zeros; chunks past a context are left as they are. For every
 * position below maxContext the table has an entry that names a slot or page of the cache, used or not.
 * (Dao et al., Flash-Decoding, 2023.)
 */
export function decodeAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  slots: SlotLookup,
  contextLens: Tensor,
  maxContext: number,
  scale: number,
): Tensor {
  const [, heads, headSize] = k.shape as [number, number, number];
  checkCache("decode-attention", k, v);
  check(
    q.cols === heads * headSize,
    () =>
      `decode-attention: q is ${shapeText(q.shape)} but the cache is ${shapeText(k.shape)}; q needs H · D columns`,
  );
  check(
    headSize % 4 === 0 && headSize <= MAX_HEAD_SIZE,
    () =>
      `decode-attention: a head of ${headSize} channels; wanted a multiple of 4, at most ${MAX_HEAD_SIZE}`,
  );
  check(
    contextLens.cols === q.rows,
    () => `decode-attention: q is ${shapeText(q.shape)} but there are ${contextLens.cols} contexts`,
  );
  check(
    Number.isInteger(maxContext) && maxContext > 0,
    () => `decode-attention: maxContext is ${maxContext}, wanted a positive integer`,
  );
  checkTable(slots, q.rows, maxContext);
  const chunks = Math.ceil(maxContext / CHUNK);
  const partials = Tensor.empty(q.gpu, [q.rows, heads, chunks, headSize + 4], { label: "decode-attention" });
  kernel.run(
    q.gpu,
    { q, k, v, slot_table: slots.table, context_lens: contextLens, partials },
    {},
    [heads, chunks, q.rows],
    {
      parts: [...attentionForm(k), slots.part],
      constants: {
        HEADS: heads,
        HEAD_QUADS: headSize / 4,
        CHUNKS: chunks,
        MAX_CONTEXT: maxContext,
        SCALE: scale,
        ...(slots.part === "slots-paged" ? { TABLE_WIDTH: slots.table.cols, PAGE_SIZE: slots.pageSize } : {}),
      },
      // Of contexts as long as they can be: only the GPU knows how long they are.
      work: () => attentionWork(q.rows, k, q.rows * maxContext, q.rows * maxContext),
    },
  );
  return partials;
}

/** The kernel looks up every position below maxContext, so there must be an entry for each. */
function checkTable({ part, table, pageSize }: SlotLookup, sequences: number, maxContext: number): void {
  const fits =
    part === "slots-contiguous"
      ? table.rows * table.cols === sequences
      : table.rows === sequences && table.cols * pageSize >= maxContext;
  check(
    fits,
    () =>
      `decode-attention: the table is ${shapeText(table.shape)}; ${sequences} sequences of up to ${maxContext} tokens need ` +
      (part === "slots-contiguous"
        ? `[${sequences}]`
        : `[${sequences}, ${Math.ceil(maxContext / pageSize)}] or more columns for pages of ${pageSize}`),
  );
}
