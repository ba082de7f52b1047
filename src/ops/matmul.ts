import { check } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import { shapeText, Tensor } from "../tensor.ts";
import { matrixTile } from "./matrix-form.ts";
import { checkProduct, type Epilogue, epilogueCode, productSizes, productWork } from "./product.ts";
import { storagePart } from "./storage.ts";

const portable = new Kernel("matmul");
const matrix = new Kernel("matmul-subgroup-matrix");

/** Everything that matmul and matvec have in common: they are one operation in two forms. */
export function productArguments(
  op: string,
  x: Tensor,
  w: Tensor,
  bias: Tensor,
  epilogue: Epilogue,
  dtype: "f32" | "f16" = "f32",
) {
  checkProduct(op, x, w, bias);
  const residual = typeof epilogue === "object" ? epilogue.residual : undefined;
  check(
    !residual || (residual.rows === x.rows && residual.cols === w.cols),
    () =>
      `${op}: the product is [${x.rows}, ${w.cols}] but residual is ${shapeText(residual!.shape)}; the shapes must be equal`,
  );
  const y = Tensor.empty(x.gpu, [x.rows, w.cols], { dtype, label: op });
  return {
    y,
    // A binding must not be empty: without a residual, bias stands in and is not read.
    buffers: { x, w, bias, residual: residual ?? bias, y },
    parts: [storagePart(w)],
    constants: { EPILOGUE: epilogueCode(epilogue), ...productSizes(w) },
    work: productWork(x.rows, w),
  };
}

/**
 * x [rows, K] · w [K, N] + bias [1, N], with an epilogue; a new tensor [rows, N] f32. w is f32, f16 or i8 (then bias is
 * [2, N], with the columns' scales), all else f32; the sum over K runs in f32. For many rows; matvec is the form for few.
 */
export function matmul(x: Tensor, w: Tensor, bias: Tensor, epilogue?: Epilogue): Tensor {
  const { y, buffers, ...options } = productArguments("matmul", x, w, bias, epilogue);
  const workgroups = [Math.ceil(options.constants.N_QUADS / 16), Math.ceil(x.rows / 16)];
  portable.run(x.gpu, buffers, { rows: x.rows }, workgroups, options);
  return y;
}

/**
 * The same by subgroup matrices, see hasMatrixForm, into a new tensor of `dtype`. x is f32 or f16, w f16: f32 is rounded to
 * halves first. The sum over K, in f32, has an order of its own: a row has other last bits than matmul gives it, but the same
 * ones whatever rows are beside it.
 */
export function matrixMatmul(
  x: Tensor,
  w: Tensor,
  bias: Tensor,
  epilogue?: Epilogue,
  dtype: "f32" | "f16" = "f32",
): Tensor {
  const { y, buffers, constants, work } = productArguments("matmul", x, w, bias, epilogue, dtype);
  const { part, workgroups } = matrixTile(x.rows, w.cols);
  const params = { rows: x.rows, depth: x.cols, k_quads: x.stride / 4, n_quads: w.stride / 4 };
  matrix.run(x.gpu, buffers, params, workgroups, {
    parts: [part, `matrix-x-${x.dtype}`, `matrix-y-${dtype}`],
    constants: { EPILOGUE: constants.EPILOGUE },
    work,
  });
  return y;
}
