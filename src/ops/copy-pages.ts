import { check } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import type { BufferRange } from "../gpu/recording.ts";
import { ELEMENT_BYTES, shapeText, type Tensor } from "../tensor.ts";
import { checkCache } from "./kv-write.ts";
import { storagePart } from "./storage.ts";

const kernel = new Kernel("copy-pages");

/** DIRECTION in shaders/copy-pages.wgsl. */
const DIRECTIONS = { within: 0, out: 1, in: 2 } as const;

/** Pages of all layers side by side, outside of the cache. */
export interface PageBlock {
  /** [layers, 2, pages · pageSize, H, D], of the cache's dtype: keys, then values, layer after layer. */
  readonly block: Tensor;
  readonly layer: number;
}

/**
 * Copy pages of k and v [slots, H, D] within them: pairs [n, 2] u32 are from and to. No page may be both, and none be copied to
 * twice: the order of copies is undefined. `spare` is any memory of the cache's dtype that is not k, v or pairs; it is not
 * touched. Pages must lie within k: the caller checks that.
 */
export function copyPages(k: Tensor, v: Tensor, pairs: Tensor, pageSize: number, spare: BufferRange): void {
  const { allocation, offset, bytes } = spare;
  run("within", k, v, pairs, pageSize, { allocation, offset, bytes }, 0, 0);
}

/** Copy pages of k and v into the pages of a block: pairs [n, 2] u32 are page of the cache and page of the block. */
export function savePages(k: Tensor, v: Tensor, pairs: Tensor, pageSize: number, block: PageBlock): void {
  runWithBlock("out", k, v, pairs, pageSize, block);
}

/** Copy pages of a block into k and v: pairs [n, 2] u32 are page of the block and page of the cache. */
export function restorePages(k: Tensor, v: Tensor, pairs: Tensor, pageSize: number, block: PageBlock): void {
  runWithBlock("in", k, v, pairs, pageSize, block);
}

function runWithBlock(
  direction: "out" | "in",
  k: Tensor,
  v: Tensor,
  pairs: Tensor,
  pageSize: number,
  { block, layer }: PageBlock,
): void {
  const [layers, two, slots, ...head] = block.shape;
  check(
    two === 2 &&
      layers! > layer &&
      slots! % pageSize === 0 &&
      shapeText(head) === shapeText(k.shape.slice(1)),
    () =>
      `copy-pages: the block is ${shapeText(block.shape)} but the cache is ${shapeText(k.shape)} in pages of ${pageSize} slots; wanted [layers, 2, pages · ${pageSize}, H, D] with a layer ${layer}`,
  );
  const values = (slots! * k.shape[1]! * k.stride) / 4;
  run(direction, k, v, pairs, pageSize, block, 2 * values * layer, values);
}

function run(
  direction: keyof typeof DIRECTIONS,
  k: Tensor,
  v: Tensor,
  pairs: Tensor,
  pageSize: number,
  block: BufferRange,
  first: number,
  values: number,
): void {
  checkCache("copy-pages", k, v);
  check(pairs.cols === 2, () => `copy-pages: pairs are ${shapeText(pairs.shape)}; wanted [n, 2]`);
  const [, heads, headSize] = k.shape as [number, number, number];
  const page_quads = (pageSize * heads * k.stride) / 4;
  const params = { page_quads, first, values };
  kernel.run(k.gpu, { pairs, k, v, block }, params, [Math.ceil(page_quads / 64), pairs.rows], {
    parts: [storagePart(k)],
    constants: { DIRECTION: DIRECTIONS[direction] },
    work: () => ({
      shape: `${pairs.rows}×2×${pageSize}×${heads}×${headSize}`,
      bytes: 4 * pairs.rows * pageSize * heads * headSize * ELEMENT_BYTES[k.dtype],
      flops: 0,
    }),
  });
}
