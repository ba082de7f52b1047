import { check } from "../check.ts";
import type { Tensor } from "../tensor.ts";

/** The shader part that loads and stores this tensor's elements. Throws for a dtype that holds no numbers. */
export function storagePart(tensor: Tensor): "storage-f32" | "storage-f16" {
  check(tensor.dtype !== "u32", `storage: ${tensor.allocation.label} is u32; wanted f32 or f16`);
  return `storage-${tensor.dtype}`;
}
