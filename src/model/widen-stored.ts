import { check } from "../check.ts";
import type { StoredDtype } from "../formats/tensor-file.ts";
import { widenBfloat, widenHalf } from "../half.ts";

/** A checkpoint's little-endian bytes as floats. Exact for F32, F16 and BF16; F64 is rounded to the nearest float. */
export function widenStored(bytes: Uint8Array, dtype: StoredDtype): Float32Array {
  // A typed array must begin at a multiple of its element's size: bytes cut out of a file may not.
  const aligned = bytes.byteOffset % 8 === 0 ? bytes : bytes.slice();
  const { buffer, byteOffset, byteLength } = aligned;
  switch (dtype) {
    case "F32":
      return new Float32Array(buffer, byteOffset, byteLength / 4);
    case "F16":
      return widenHalf(new Uint16Array(buffer, byteOffset, byteLength / 2));
    case "BF16":
      return widenBfloat(new Uint16Array(buffer, byteOffset, byteLength / 2));
    case "F64":
      return Float32Array.from(new Float64Array(buffer, byteOffset, byteLength / 8));
    default:
      check(false, `weights: ${dtype} is not a floating-point type`);
  }
}
