import { check } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import { ELEMENT_BYTES, shapeText, Tensor } from "../tensor.ts";
import { matrixTile } from "./matrix-form.ts";
import { checkProduct, productWork } from "./product.ts";
import { storagePart } from "./storage.ts";

const kernel = new Kernel("kv-write");
const matrix = new Kernel("kv-write-subgroup-matrix");

/** Throws unless k and v are the two halves of one cache: [slots, H, D] both, of one dtype. */
export function checkCache(op: string, k: Tensor, v: Tensor): void {
  check(
    k.shape.length === 3 && shapeText(k.shape) === shapeText(v.shape) && k.dtype === v.dtype,
    () =>
      `${op}: k is ${k.dtype} ${shapeText(k.shape)} but v is ${v.dtype} ${shapeText(v.shape)}; both must be [slots, H, D] of one dtype`,
  );
}

/**
 * Store the keys and values of qkv [T, 3 · C] f32 (query, key, value side by side) in the slots slotMapping [T] u32 of
 * k and v [slots, H, D], f32 or f16. Each slot must be below `slots`: the caller checks that, since the GPU would write
 * elsewhere without a word.
 */
export function kvWrite(qkv: Tensor, slotMapping: Tensor, k: Tensor, v: Tensor): void {
  const [, heads, headSize] = k.shape as [number, number, number];
  checkCache("kv-write", k, v);
  check(
    qkv.cols === 3 * heads * headSize,
    () =>
      `kv-write: qkv is ${shapeText(qkv.shape)} but the cache is ${shapeText(k.shape)}; qkv needs 3 · H · D columns`,
  );
  check(
    slotMapping.cols === qkv.rows,
    () => `kv-write: qkv is ${shapeText(qkv.shape)} but there are ${slotMapping.cols} slots`,
  );
  const head_quads = k.stride / 4;
  const params = { heads, head_size: headSize, head_quads, stride: qkv.stride };
  kernel.run(
    qkv.gpu,
    { qkv, slot_mapping: slotMapping, k, v },
    params,
    [Math.ceil((heads * head_quads) / 64), qkv.rows],
    {
      parts: [storagePart(k)],
      work: () => ({
        shape: `${qkv.rows}×2×${heads}×${headSize}`,
        bytes: 2 * qkv.rows * heads * headSize * (4 + ELEMENT_BYTES[k.dtype]),
        flops: 0,
      }),
    },
  );
}

/** Throws unless x [T, C] · w [C, 3 · C] + bias gives queries, keys and values for slotMapping [T] of the cache, heads in quads. */
export function checkQkv(
  op: string,
  { x, w, bias, slotMapping, k, v }: Record<"x" | "w" | "bias" | "slotMapping" | "k" | "v", Tensor>,
): void {
  const [, heads, headSize] = k.shape as [number, number, number];
  checkProduct(op, x, w, bias);
  checkCache(op, k, v);
  check(headSize % 4 === 0, () => `${op}: heads of ${headSize} channels; wanted a multiple of 4`);
  check(
    x.cols === heads * headSize && w.cols === 3 * x.cols,
    () =>
      `${op}: x is ${shapeText(x.shape)}, w ${shapeText(w.shape)} and the cache ${shapeText(k.shape)}; wanted C = H · D and w [C, 3 · C]`,
  );
  check(
    slotMapping.cols === x.rows,
    () => `${op}: x is ${shapeText(x.shape)} but there are ${slotMapping.cols} slots`,
  );
}

/**
 * x [T, C] f32 or f16 · w [C, 3 · C] f16 + bias by subgroup matrices: the queries, a new tensor [T, C] of `dtype`; keys and values go into
 * the slots slotMapping [T] u32 of k and v [slots, H, D], f32 or f16, D a multiple of 4.
 *
 * It gives the bits of `matrixMatmul` and `kvWrite` one after the other, in one launch.
 */
export function matrixQkv(
  x: Tensor,
  w: Tensor,
  bias: Tensor,
  slotMapping: Tensor,
  k: Tensor,
  v: Tensor,
  dtype: "f32" | "f16" = "f32",
): Tensor {
  checkQkv("kv-write", { x, w, bias, slotMapping, k, v });
  const q = Tensor.empty(x.gpu, x.shape, { dtype, label: "kv-write" });
  const { parts, workgroups } = matrixTile(x.rows, x.cols, w.cols, x.gpu.tuning?.matrix);
  const params = { rows: x.rows, depth: x.cols, k_octs: x.stride / 8, n_octs: w.stride / 8 };
  matrix.run(x.gpu, { x, w, bias, slot_mapping: slotMapping, q, k, v }, params, workgroups, {
    parts: [...parts, `matrix-x-${x.dtype}`, `matrix-y-${dtype}`, `kv-${k.dtype}`],
    work: productWork(x.rows, w),
  });
  return q;
}
