import { check } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import { ELEMENT_BYTES, shapeText, type Tensor } from "../tensor.ts";
import { storagePart } from "./storage.ts";

const kernel = new Kernel("kv-write");

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
