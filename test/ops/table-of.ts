import type { Gpu } from "../../src/gpu/gpu.ts";
import type { Table } from "../../src/ops/storage.ts";
import { dequantize, quantize, raiseScales } from "../../src/quantize.ts";
import { Tensor } from "../../src/tensor.ts";
import { stored } from "../values.ts";

export type TableDtype = "f32" | "f16" | "i8";

/** Rows of `cols` floats as a table in blocks of so many rows each; as i8 with the scales of its rows. */
export function tableOf(
  gpu: Gpu,
  values: Float32Array,
  cols: number,
  dtype: TableDtype,
  rows: readonly number[] = [values.length / cols],
): Table {
  const { elements, scales } = rowsAsBytes(values, cols, dtype);
  let first = 0;
  const blocks = rows.map((count) => {
    const block = elements.subarray(first * cols, (first + count) * cols);
    first += count;
    return Tensor.from(gpu, [count, cols], block, { dtype });
  });
  return scales ? { blocks, scales: Tensor.from(gpu, [scales.length], scales) } : { blocks };
}

/** What a table of these values holds, in float64. */
export function storedTable(values: Float32Array, cols: number, dtype: TableDtype): ArrayLike<number> {
  const { elements, scales } = rowsAsBytes(values, cols, dtype);
  return scales
    ? dequantize(elements as Int8Array, cols, "row", scales)
    : stored(elements as Float32Array, dtype);
}

function rowsAsBytes(values: Float32Array, cols: number, dtype: TableDtype) {
  if (dtype !== "i8") return { elements: values };
  const scales = new Float32Array(values.length / cols);
  raiseScales(values, cols, "row", scales);
  return { elements: quantize(values, cols, "row", scales), scales };
}

/** Give a table's memory back. */
export function freeTable({ blocks, scales }: Table): void {
  for (const tensor of [...blocks, ...(scales ? [scales] : [])]) tensor.free();
}
