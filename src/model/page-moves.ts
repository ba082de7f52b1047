import { check } from "../check.ts";
import type { Arena } from "../gpu/arena.ts";
import type { Gpu } from "../gpu/gpu.ts";
import type { LayerKv } from "../kv/cache.ts";
import type { PageCopy } from "../kv/kv-space.ts";
import { copyPages, restorePages, savePages } from "../ops/copy-pages.ts";
import { Tensor, tensorBytes } from "../tensor.ts";

/** Keys and values of pages in host memory, of all layers; the bytes are as they were on the GPU. */
export interface HostPages {
  readonly pages: number;
  readonly bytes: number;
  /** Piece by piece: so many pages, and what a block held of them. */
  readonly pieces: readonly { readonly count: number; readonly data: ArrayBuffer }[];
}

/** Moves pages of keys and values: within the cache, and between it and the host. All in order with the steps of its Gpu. */
export class PageMoves {
  private readonly gpu: Gpu;
  private readonly layers: readonly LayerKv[];
  private readonly pageSize: number;
  private readonly spare: Tensor;
  private readonly arena: Arena;

  /** Blocks on their way to and from the host lie in the arena, so that they take no memory of their own. */
  constructor(gpu: Gpu, layers: readonly LayerKv[], pageSize: number, spare: Tensor, arena: Arena) {
    this.gpu = gpu;
    this.layers = layers;
    this.pageSize = pageSize;
    this.spare = spare;
    this.arena = arena;
  }

  /** Copy pages within the cache, in the order of `copies`: one launch a layer, more where one copy needs another's result. */
  copy(copies: readonly PageCopy[]): void {
    for (const wave of wavesOf(copies)) {
      const list = wave.flatMap(({ from, to }) => [from, to]);
      this.withPairs(list, (pairs) => {
        for (const { k, v } of this.layers) copyPages(k, v, pairs, this.pageSize, this.spare);
      });
    }
    this.gpu.submit();
  }

  /**
   * Bring pages to the host. They are read in order with the steps: once this has returned its promise, steps launched after it
   * may overwrite them. Rejects with OutOfMemory where there is no room for the staging buffers.
   */
  async read(pages: readonly number[]): Promise<HostPages> {
    const counts: number[] = [];
    const reads: Promise<ArrayBuffer>[] = [];
    for (const piece of this.pieces(pages)) {
      const list = piece.flatMap((page, i) => [page, i]);
      counts.push(piece.length);
      this.withBlock(piece.length, (block) => {
        this.withPairs(list, (pairs) => {
          this.layers.forEach(({ k, v }, layer) => {
            savePages(k, v, pairs, this.pageSize, { block, layer });
          });
        });
        reads.push(this.gpu.read(block));
      });
    }
    const pieces = (await Promise.all(reads)).map((data, i) => ({ count: counts[i]!, data }));
    return { pages: pages.length, bytes: pieces.reduce((sum, { data }) => sum + data.byteLength, 0), pieces };
  }

  /** Put pages that `read` brought into other pages of the cache, in order with the steps. */
  write(pages: readonly number[], host: HostPages): void {
    check(
      pages.length === host.pages,
      () => `pages: ${host.pages} on the host for ${pages.length} of the cache`,
    );
    let first = 0;
    for (const { count, data } of host.pieces) {
      const list = pages.slice(first, first + count).flatMap((page, i) => [i, page]);
      this.withBlock(count, (block) => {
        this.gpu.write(block, data);
        this.withPairs(list, (pairs) => {
          this.layers.forEach(({ k, v }, layer) => {
            restorePages(k, v, pairs, this.pageSize, { block, layer });
          });
        });
        // The next piece's write would overtake what is only recorded.
        this.gpu.submit();
      });
      first += count;
    }
  }

  /** As many pages at once as the arena has room for. */
  private pieces(pages: readonly number[]): number[][] {
    const most = Math.max(1, Math.floor(this.arena.largest / tensorBytes(this.blockShape(1), this.dtype)));
    return Array.from({ length: Math.ceil(pages.length / most) }, (_, i) =>
      pages.slice(i * most, (i + 1) * most),
    );
  }

  private withBlock(count: number, body: (block: Tensor) => void): void {
    this.arena.within([], () => {
      const block = Tensor.empty(this.gpu, this.blockShape(count), { dtype: this.dtype, label: "pages" });
      try {
        body(block);
      } finally {
        block.free();
      }
    });
  }

  private withPairs(list: readonly number[], body: (pairs: Tensor) => void): void {
    const options = { dtype: "u32", purpose: "tables", label: "pages to move" } as const;
    const pairs = Tensor.from(this.gpu, [list.length / 2, 2], list, options);
    try {
      body(pairs);
    } finally {
      pairs.free();
    }
  }

  private blockShape(count: number): number[] {
    const [, heads, headSize] = this.layers[0]!.k.shape as [number, number, number];
    return [this.layers.length, 2, count * this.pageSize, heads, headSize];
  }

  private get dtype(): "f32" | "f16" {
    return this.layers[0]!.k.dtype as "f32" | "f16";
  }
}

/** Copies in groups, each of which may run in any order: no page is written that another of the group reads or writes. */
export function wavesOf(copies: readonly PageCopy[]): PageCopy[][] {
  const waves: PageCopy[][] = [];
  const read = new Set<number>();
  const written = new Set<number>();
  for (const copy of copies) {
    const clashes = written.has(copy.from) || written.has(copy.to) || read.has(copy.to);
    if (clashes || waves.length === 0) {
      waves.push([]);
      read.clear();
      written.clear();
    }
    waves.at(-1)!.push(copy);
    read.add(copy.from);
    written.add(copy.to);
  }
  return waves;
}
