import { check } from "../check.ts";
import type { BufferRange } from "../gpu/recording.ts";
import { ELEMENT_BYTES, type Tensor } from "../tensor.ts";

/** The shader part that loads this tensor's elements. Throws for a dtype that holds no numbers. */
export function storagePart(tensor: Tensor): "storage-f32" | "storage-f16" | "storage-i8" {
  check(tensor.dtype !== "u32", `storage: ${tensor.allocation.label} is u32; wanted f32, f16 or i8`);
  return `storage-${tensor.dtype}`;
}

/** A table of rows, such as an embedding [V, C]: looked up by row, or multiplied transposed as the head. */
export interface Table {
  /** Blocks of rows in order, of one dtype; one block where the table fits a binding. */
  readonly blocks: readonly Tensor[];
  /** One scale for each row of the whole table, [rows] f32, when the blocks are i8. */
  readonly scales?: Tensor;
}

/**
 * What a kernel binds as a table's scales: where there are none, the table itself, which it does not read. A binding must
 * not be empty.
 */
export function scalesRange({ blocks, scales }: Table): BufferRange {
  if (scales) return scales;
  const { allocation, offset, bytes } = blocks[0]!;
  return { allocation, offset, bytes };
}

/** Bytes that reading one row of a table takes, its scale included. */
export function rowBytes({ blocks, scales }: Table): number {
  const { stride, dtype } = blocks[0]!;
  return stride * ELEMENT_BYTES[dtype] + (scales ? 4 : 0);
}

/** That a table has blocks of one dtype and width, and scales for all rows just when it is i8. Returns how many rows. */
export function checkTable(op: string, name: string, { blocks, scales }: Table): number {
  const first = blocks[0];
  check(first, `${op}: ${name} has no blocks`);
  for (const { dtype, cols } of blocks)
    check(
      dtype === first.dtype && cols === first.cols,
      () =>
        `${op}: ${name} has blocks of ${first.dtype} with ${first.cols} columns and of ${dtype} with ${cols}; all must be alike`,
    );
  const rows = blocks.reduce((sum, block) => sum + block.rows, 0);
  const wanted = first.dtype === "i8" ? rows : undefined;
  check(
    scales?.cols === wanted,
    () =>
      `${op}: ${name} is ${first.dtype} with ${rows} rows and ${scales?.cols ?? "no"} scales; wanted ${wanted ?? "none"}`,
  );
  return rows;
}
