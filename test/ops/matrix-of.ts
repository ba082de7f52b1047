import type { Gpu } from "../../src/gpu/gpu.ts";
import { dequantize, quantize, raiseScales } from "../../src/quantize.ts";
import { Tensor } from "../../src/tensor.ts";
import { stored } from "../values.ts";
import type { TableDtype } from "./table-of.ts";

export const WEIGHT_DTYPES = ["f32", "f16", "i8"] as const satisfies readonly TableDtype[];

/** A matrix [K, N] and its bias [N] as the products take them: as i8 the bias has the columns' scales in a second row. */
export function matrixOf(
  gpu: Gpu,
  values: Float32Array,
  bias: Float32Array,
  dtype: TableDtype,
): { readonly w: Tensor; readonly bias: Tensor } {
  const N = bias.length;
  const shape = [values.length / N, N];
  if (dtype !== "i8")
    return { w: Tensor.from(gpu, shape, values, { dtype }), bias: Tensor.from(gpu, [1, N], bias) };
  const { bytes, scales } = columnsAsBytes(values, N);
  const w = Tensor.from(gpu, shape, bytes, { dtype });
  return { w, bias: Tensor.from(gpu, [2, N], [...bias, ...scales]) };
}

/** What a matrix of these values with N columns holds, in float64. */
export function storedMatrix(values: Float32Array, N: number, dtype: TableDtype): ArrayLike<number> {
  if (dtype !== "i8") return stored(values, dtype);
  const { bytes, scales } = columnsAsBytes(values, N);
  return dequantize(bytes, N, "column", scales);
}

function columnsAsBytes(values: Float32Array, N: number) {
  const scales = new Float32Array(N);
  raiseScales(values, N, "column", scales);
  return { bytes: quantize(values, N, "column", scales), scales };
}
