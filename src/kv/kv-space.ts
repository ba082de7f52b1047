// The host's side of a KV cache for many sequences: who has which slots. Pure: it knows numbers, no memory.

/**
 * The contents of page `from` must be in page `to` before the step that follows runs. The copies of one step may be made in any order,
 * or all at once: no page is written by two of them, or read by one and written by another.
 */
export interface PageCopy {
  readonly from: number;
  readonly to: number;
}

/** What a sequence asks for when it is admitted. */
export interface Admission {
  /** Ids known so far: the prompt, and after a preemption what was generated. Their keys and values are wanted. */
  readonly tokens: readonly number[];
  /** Tokens that the next step will compute at most, after those found in the prefix cache; the rest comes by `grow`. */
  readonly chunk: number;
  /** The most tokens, prompt included, whose keys and values the sequence will ever have here. */
  readonly finalLength: number;
  /** Tenants do not share pages: only sequences of equal salt do. Default "". */
  readonly salt?: string;
  /** Who it is, for `regions`. */
  readonly owner: number;
}

/** What one sequence has: made by `admit` or `fork`, given back by `release`. */
export interface Holding {
  readonly owner: number;
  /** Slots for the positions 0 … capacity - 1. */
  readonly capacity: number;
  /** Positions 0 … length - 1 have, or will have when the steps planned so far have run, their keys and values. */
  readonly length: number;
  /** Tokens that `admit` found in the prefix cache; they need not be computed. */
  readonly cachedTokens: number;
}

/** Slots of one stretch of the cache, for the page map and the fragmentation figures. */
export interface Region {
  /** First slot. */
  readonly slot: number;
  readonly slots: number;
  /** Slots from the first on that hold keys and values of living sequences. */
  readonly used: number;
  /** Owners of the holdings that have it; several where it is shared, none where it is free. */
  readonly owners: readonly number[];
  /** Free, but its contents are known to the prefix cache. */
  readonly isCached: boolean;
}

/** Counts are slots (tokens). */
export interface SpaceUsage {
  /** Slots that sequences can have; the null page is not one. */
  readonly total: number;
  /** Held by sequences, each slot once, shared or not. */
  readonly reserved: number;
  /** Held and with keys and values, each slot once. reserved − used is internal fragmentation. */
  readonly used: number;
  /** Tokens of all holdings, shared ones counted for each: what it would take without sharing. */
  readonly logical: number;
  /** Not held. In a space of strips it may lie in pieces too small for anybody: external fragmentation. */
  readonly free: number;
  /** The largest stretch of free slots that one sequence could have: all free pages, or the largest hole. */
  readonly largestFree: number;
  /** Free, with contents that the prefix cache knows. */
  readonly cached: number;
}

/**
 * Where the sequences of an engine have their keys and values: pages (PagedSpace) or strips (StripSpace). Nothing here throws
 * for lack of room: what does not fit gives undefined or false and changes nothing, and the scheduler decides.
 */
export interface KvSpace {
  readonly kind: "pages" | "strips";
  /** Slots of a page; 1 where there are no pages. */
  readonly pageSize: number;
  /** Slots from 0 to the end of the memory that the space needs, a null page included: what the layers must hold. */
  readonly slots: number;
  /** Free pages, or free slots of strips, that admission leaves for those who run already. */
  readonly watermark: number;
  /** Why `sequences` sequences of `finalLength` tokens could not be held even if they were alone and shared nothing; else undefined. */
  refusal(sequences: number, finalLength: number): string | undefined;
  /** A place for one more sequence, with room for its first chunk beyond the watermark (which an empty space does not keep). */
  admit(admission: Admission): Holding | undefined;
  /**
   * Have slots for the positions up to `length` - 1, those from holding.length on its own: a shared page that
   * would be written is copied first, and the copy added to `copies`. Then holding.length is `length`. False if there are too few.
   */
  grow(holding: Holding, length: number, copies: PageCopy[]): boolean;
  /** The holding's tokens, as far as they are known; the first `length` of them are computed by the steps planned so far. Full pages can be found from now on. */
  commit(holding: Holding, tokens: readonly number[], length: number): void;
  /**
   * A second holding that shares everything of this one until one of them writes. Copies are made before a step's tokens are
   * written, so do not fork what grew in the plan that is being made: fork before, or after it is planned. Strips throw: see refusal.
   */
  fork(holding: Holding, owner: number): Holding;
  /**
   * Give everything back. What the prefix cache knows stays findable until somebody needs the page. In the middle of a plan release
   * whole requests only: a holding with all that were forked with it, and none that was committed to the tokens of that plan.
   */
  release(holding: Holding): void;
  /** The holding's row of the slot table: its pages in order, or the first slot of its strip. Right until the holding changes. */
  slotRow(holding: Holding): readonly number[];
  usage(): SpaceUsage;
  /** Every region of the space in the order of slots. */
  regions(): Region[];
}
