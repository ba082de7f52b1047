import { check } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import { shapeText, Tensor } from "../tensor.ts";
import { matrixTile } from "./matrix-form.ts";
import { checkProduct, type Epilogue, epilogueCode, productSizes, productWork } from "./product.ts";
import { storagePart } from "./storage.ts";

const portable = new Kernel("matmul");
const matrix = new Kernel("matmul-subgroup-matrix");

/** Everything that matmul and matvec have in common: they are one operation in two forms. */
export function productArguments(op: string, x: Tensor, w: Tensor, bias: Tensor, epilogue: Epilogue) {
  checkProduct(op, x, w, bias);
  const residual = typeof epilogue === "object" ? epilogue.residual : undefined;
  check(
    !residual || (residual.rows === x.rows && residual.cols === w.cols),
    () =>
      `${op}: the product is [${x.rows}, ${w.cols}] but residual is ${shapeText(residual!.shape)}; the shapes must be equal`,
  );
  const y = Tensor.empty(x.gpu, [x.rows, w.cols], { label: op });
  return {
    y,
    // A binding must not be empty: without a residual, bias stands in and is not read.
    buffers: { x, w, bias, residual: residual ?? bias, y },
    parts: [storagePart(w)],
    constants: { EPILOGUE: epilogueCode(epilogue), ...productSizes(w) },
    work: productWork(x.rows, w),
  };
}

/** Who computes a product: "portable" is f32 throughout; "matrix" uses subgroup matrices, see hasMatrixForm. */
export type ProductForm = "portable" | "matrix";

/**
 * x [rows, K] · w [K, N] + bias [1, N], with an epilogue; a new tensor [rows, N] f32. w is f32, f16 or i8 (then bias is
 * [2, N], with the columns' scales), all else f32; the sum over K runs in f32. For many rows; matvec is the form for few.
 *
 * The form "matrix" rounds x to halves, and its sum over K has an order of its own: a row has other last bits than in
 * the portable form, but the same ones whatever rows are beside it.
 */
export function matmul(
  x: Tensor,
  w: Tensor,
  bias: Tensor,
  epilogue?: Epilogue,
  form: ProductForm = "portable",
): Tensor {
  const { y, buffers, ...options } = productArguments("matmul", x, w, bias, epilogue);
  const params = { rows: x.rows };
  if (form === "matrix") {
    const { part, workgroups } = matrixTile(x.rows, w.cols);
    const sizes = { ...params, depth: x.cols, k_quads: x.stride / 4, n_quads: w.stride / 4 };
    const constants = { EPILOGUE: options.constants.EPILOGUE };
    matrix.run(x.gpu, buffers, sizes, workgroups, { parts: [part], constants, work: options.work });
    return y;
  }
  const workgroups = [Math.ceil(options.constants.N_QUADS / 16), Math.ceil(x.rows / 16)];
  portable.run(x.gpu, buffers, params, workgroups, options);
  return y;
}
