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

/**
 * Refuse a run that its cache could not finish, before it begins. makeCache does not: a run may well end earlier.
 *
 * A sequence of `expectedLength` tokens needs a slot for each but the last, which is never fed back. Throws BadInput.
 */
export function checkFits(options: CacheOptions): void {
  const { mode, sequences, contextLength, expectedLength, maxSeqLen, pages } = options;
  const length = Math.min(expectedLength, contextLength);
  const slots = length - 1;
  const why = `a sequence of up to ${length} tokens needs a slot for each but the last`;
  const advice = "raise it, leave it out, or generate fewer tokens";
  if (mode === "contiguous" && maxSeqLen !== undefined && maxSeqLen < slots)
    throw new BadInput(`--max-seq-len is ${maxSeqLen}; this run needs ${slots}: ${why}; ${advice}`);
  const pageSize = options.pageSize ?? DEFAULT_PAGE_SIZE;
  const wanted = sequences * Math.ceil(slots / pageSize);
  if (mode === "paged" && pages !== undefined && pages < wanted)
    throw new BadInput(
      `--kv-pages is ${pages}; this run needs ${wanted} pages of ${pageSize} slots: ${why}; ${advice}`,
    );
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
