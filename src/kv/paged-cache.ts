import { check } from "../check.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { Tensor } from "../tensor.ts";
import { lookInPages, rememberedStep } from "./attend-slots.ts";
import {
  allocateLayers,
  type CacheShape,
  type CacheStep,
  freeLayers,
  type KvUsage,
  type LayerKv,
  type Place,
  type RememberingCache,
  type StepRequest,
  slotBytes,
  sum,
} from "./cache.ts";
import { NULL_PAGE, OutOfPages, PageAllocator } from "./page-allocator.ts";
import { PageTable } from "./page-table.ts";

/**
 * Keys and values in pages of `pageSize` slots, taken from one pool as a sequence grows (Kwon et al., 2023). A sequence
 * wastes less than one page, and pages of one sequence may lie anywhere.
 */
export class PagedCache implements RememberingCache {
  readonly mode = "paged";
  readonly remembers = true;
  readonly slotPart = "slots-paged";
  readonly pageSize: number;
  readonly allocator: PageAllocator;
  private readonly gpu: Gpu;
  readonly shape: CacheShape;
  readonly layers: readonly LayerKv[];
  private readonly tables = new Set<PageTable>();

  /** A pool of `pages` usable pages, and the null page that padding points at. Throws OutOfMemory. */
  constructor(gpu: Gpu, shape: CacheShape, pages: number, pageSize: number) {
    this.gpu = gpu;
    this.shape = shape;
    this.pageSize = pageSize;
    this.allocator = new PageAllocator(pages + 1);
    this.layers = allocateLayers(gpu, shape, (pages + 1) * pageSize, "paged cache");
  }

  open(): Place {
    const table = new PageTable(this.allocator, this.pageSize);
    this.tables.add(table);
    return table;
  }

  prepare(requests: readonly StepRequest[]): CacheStep {
    const tables = requests.map(({ place }) => this.table(place));
    // All or nothing: what may fail comes before the first table grows.
    const pagesOf = ({ place, count }: StepRequest) => Math.ceil((place.length + count) / this.pageSize);
    const wanted = sum(requests.map((r, i) => Math.max(0, pagesOf(r) - tables[i]!.pages.length)));
    const { freeCount, total } = this.allocator;
    if (wanted > freeCount) throw new OutOfPages(wanted, freeCount, total);
    const width = Math.max(...requests.map((r, i) => Math.max(pagesOf(r), tables[i]!.pages.length)));
    const pageTable = Tensor.empty(this.gpu, [tables.length, width], {
      dtype: "u32",
      purpose: "tables",
      label: "page table",
    });

    const slotMapping = new Uint32Array(sum(requests.map((r) => r.count)));
    let t = 0;
    requests.forEach(({ count }, i) => {
      const table = tables[i]!;
      const begin = table.length;
      table.append(count);
      slotMapping.set(table.slots(begin, begin + count), t);
      t += count;
    });
    this.gpu.write(pageTable, rowsOf(tables, width));
    return {
      slotMapping,
      ...rememberedStep(this.layers, lookInPages(pageTable, this.pageSize)),
    };
  }

  tableWidth(tokens: number): number {
    return Math.ceil(tokens / this.pageSize);
  }

  reserve(place: Place, count: number): void {
    this.table(place).reserve(count);
  }

  slotRow(place: Place): readonly number[] {
    return this.table(place).pages;
  }

  grow(place: Place, count: number): void {
    this.table(place).append(count);
  }

  close(place: Place): void {
    const table = this.table(place);
    table.release();
    this.tables.delete(table);
  }

  usage(): KvUsage {
    const bytes = slotBytes(this.shape);
    const reserved = this.allocator.usedCount * this.pageSize * bytes;
    const used = sum([...this.tables].map((t) => t.length)) * bytes;
    const allocated = (this.allocator.total + 1) * this.pageSize * bytes;
    return { allocated, reserved, used, wasted: reserved - used };
  }

  free(): void {
    freeLayers(this.layers);
  }

  private table(place: Place): PageTable {
    check(this.tables.has(place as PageTable), "paged cache: this place is closed, or another cache's");
    return place as PageTable;
  }
}

/** The page tables as the rows of one array [S, width], filled up with the null page. */
function rowsOf(tables: readonly PageTable[], width: number): Uint32Array {
  const rows = new Uint32Array(tables.length * width).fill(NULL_PAGE);
  tables.forEach((table, s) => {
    rows.set(table.pages, s * width);
  });
  return rows;
}
