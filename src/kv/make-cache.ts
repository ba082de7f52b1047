import { BadInput } from "../check.ts";
import type { Gpu } from "../gpu/gpu.ts";
import type { CacheMode, CacheShape, KvCache } from "./cache.ts";
import { ContiguousCache } from "./contiguous-cache.ts";
import { NoCache } from "./no-cache.ts";
import { DEFAULT_PAGE_SIZE, validatePageSize } from "./page-table.ts";
import { PagedCache } from "./paged-cache.ts";

export interface CacheOptions {
  readonly mode: CacheMode;
  /** Most sequences at once. */
  readonly sequences: number;
  /** The model's context: no sequence gets longer. */
  readonly contextLength: number;
  /** The most tokens that a sequence of this run can come to, prompt included. */
  readonly expectedLength: number;
  /** contiguous: slots of a strip. Default: the model's context, since nobody knows how long a sequence will get. */
  readonly maxSeqLen?: number;
  /** paged: slots of a page, 8 … 256. Default 16. */
  readonly pageSize?: number;
  /** paged: pages in the pool. Default: enough for every sequence at its expected length. */
  readonly pages?: number;
}

/** Make the cache for a run. Throws BadInput on options that cannot be, OutOfMemory when it does not fit. */
export function makeCache(gpu: Gpu, shape: CacheShape, options: CacheOptions): KvCache {
  const { mode, sequences, contextLength, expectedLength } = options;
  const maxSeqLen = options.maxSeqLen ?? contextLength;
  const pageSize = options.pageSize ?? DEFAULT_PAGE_SIZE;
  if (!Number.isInteger(maxSeqLen) || maxSeqLen < 1 || maxSeqLen > contextLength)
    throw new BadInput(
      `--max-seq-len is ${maxSeqLen}; wanted an integer from 1 to the model's context of ${contextLength}`,
    );
  validatePageSize(pageSize);
  const pages = options.pages ?? sequences * Math.ceil(Math.min(expectedLength, contextLength) / pageSize);
  if (!Number.isInteger(pages) || pages < 1)
    throw new BadInput(`--kv-pages is ${pages}; wanted an integer of at least 1`);
  switch (mode) {
    case "none":
      return new NoCache(gpu, shape);
    case "contiguous":
      return new ContiguousCache(gpu, shape, sequences, maxSeqLen);
    case "paged":
      return new PagedCache(gpu, shape, pages, pageSize);
  }
}
