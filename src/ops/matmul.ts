import { check } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import { shapeText, Tensor } from "../tensor.ts";
import type { GeluForm } from "./gelu.ts";
import { storagePart } from "./storage.ts";

const kernel = new Kernel("matmul");

/** What happens to a product before it is stored: nothing, GELU, or a residual [rows, N] added to it. */
export type Epilogue = undefined | GeluForm | { readonly residual: Tensor };

/** EPILOGUE in matmul.wgsl and matvec.wgsl. */
const CODES = { "gelu-tanh": 1, "gelu-erf": 2, residual: 3 } as const;

/**
 * Shares of the sum over K. In matvec a thread takes each, and a GPU hides its loads behind many threads; a CPU that plays
 * GPU has nothing to hide. matmul adds up in the same shares, so that the two forms give the same bits.
 */
export const SPLIT = { gpu: 32, software: 1 };

/** Everything that matmul and matvec have in common: they are one operation in two forms. */
export function productArguments(op: string, x: Tensor, w: Tensor, bias: Tensor, epilogue: Epilogue) {
  check(
    x.cols === w.rows,
    () => `${op}: x is ${shapeText(x.shape)} but w is ${shapeText(w.shape)}; x's columns must equal w's rows`,
  );
  check(
    bias.cols === w.cols,
    () => `${op}: w is ${shapeText(w.shape)} but bias is ${shapeText(bias.shape)}; columns must be equal`,
  );
  const residual = typeof epilogue === "object" ? epilogue.residual : undefined;
  check(
    !residual || (residual.rows === x.rows && residual.cols === w.cols),
    () =>
      `${op}: the product is [${x.rows}, ${w.cols}] but residual is ${shapeText(residual!.shape)}; the shapes must be equal`,
  );
  const y = Tensor.empty(x.gpu, [x.rows, w.cols], { label: op });
  const code = residual ? CODES.residual : typeof epilogue === "string" ? CODES[epilogue] : 0;
  return {
    y,
    // A binding must not be empty: without a residual, bias stands in and is not read.
    buffers: { x, w, bias, residual: residual ?? bias, y },
    params: { depth: x.cols, k_quads: x.stride / 4, n_quads: y.stride / 4 },
    parts: [storagePart(w)],
    constants: { EPILOGUE: code, SPLIT: SPLIT[x.gpu.forms] },
  };
}

/**
 * x [rows, K] · w [K, N] + bias [N], with an epilogue; a new tensor [rows, N] f32. w is f32 or f16, all else f32; the sum
 * over K runs in f32, in the shares of SPLIT. For many rows; matvec is the form for few.
 */
export function matmul(x: Tensor, w: Tensor, bias: Tensor, epilogue?: Epilogue): Tensor {
  const { y, buffers, params, parts, constants } = productArguments("matmul", x, w, bias, epilogue);
  const workgroups = [Math.ceil(params.n_quads / 16), Math.ceil(x.rows / 16)];
  kernel.run(x.gpu, buffers, { rows: x.rows, ...params }, workgroups, { parts, constants });
  return y;
}
