// What `bench capacity` compares: ways to hand out the same memory, and the requests that want it. Pure.
import { BadInput } from "../check.ts";
import type { KvLayout } from "../generate/engine-types.ts";
import type { KvSpace } from "../kv/kv-space.ts";
import { PagedSpace } from "../kv/page-space.ts";
import { StripSpace } from "../kv/strip-space.ts";
import { type Lengths, randomWorkload, type WorkloadRequest } from "./workload.ts";

/** Lengths as chat logs have them, each prompt its own; and the same after one long prefix that all share. */
export const MIXES = ["lognormal", "shared-prefix"] as const;
export type Mix = (typeof MIXES)[number];

export const MIX_NAMES: Record<Mix, string> = {
  lognormal: "Log-normal lengths",
  "shared-prefix": "Shared prefix",
};

/** With more slots a page map is too large to be drawn, and too fine to be read. */
export const MOST_MAPPED_SLOTS = 2 ** 18;

/** One way to hand out the memory. */
export interface CapacityLayout {
  readonly layout: KvLayout;
  /** 1 for strips. */
  readonly pageSize: number;
  readonly prefixCache: boolean;
}

/** The same for all layouts. Counts are slots (tokens) where nothing else is said. */
export interface Budget {
  readonly kvTokens: number;
  /** The most that a request may have, and the size of a strip of maximum length. */
  readonly maxSeqLen: number;
  /** Share of the pages that admission leaves free. */
  readonly watermark: number;
}

/** Strips first, then pages by size, without and with sharing. */
export function layoutsOf(pageSizes: readonly number[]): CapacityLayout[] {
  return [
    { layout: "strips-max", pageSize: 1, prefixCache: false },
    { layout: "strips-exact", pageSize: 1, prefixCache: false },
    ...pageSizes.flatMap((pageSize) =>
      [false, true].map((prefixCache) => ({ layout: "pages" as const, pageSize, prefixCache })),
    ),
  ];
}

/** "strips-max", "pages-16", "pages-16-shared": for files and for messages. */
export function layoutId({ layout, pageSize, prefixCache }: CapacityLayout): string {
  return layout === "pages" ? `pages-${pageSize}${prefixCache ? "-shared" : ""}` : layout;
}

/** In words, for tables and charts. */
export function layoutName({ layout, pageSize, prefixCache }: CapacityLayout): string {
  if (layout === "strips-max") return "strips, maximum length";
  if (layout === "strips-exact") return "strips, exact length";
  return `pages of ${pageSize}${prefixCache ? ", shared" : ""}`;
}

/**
 * Slots that sequences can have. Pages are whole and one of them is nobody's (padding writes there), so what is left of the
 * budget is lost; a strip of any length begins anywhere, and the one slot that padding needs comes on top of the budget.
 */
export function usableTokens({ layout, pageSize }: CapacityLayout, { kvTokens }: Budget): number {
  return layout === "pages" ? (Math.floor(kvTokens / pageSize) - 1) * pageSize : kvTokens;
}

/** Slots that the layers must hold, padding's included: what the engine is given, times the bytes of a slot. */
export function heldSlots(layout: CapacityLayout, budget: Budget): number {
  return usableTokens(layout, budget) + layout.pageSize;
}

/** Why the layout cannot hold the longest request even alone; else undefined. */
export function refusalOf(layout: CapacityLayout, budget: Budget, finalLength: number): string | undefined {
  if (layout.layout === "pages" && usableTokens(layout, budget) < layout.pageSize)
    return `${budget.kvTokens} slots have no two pages of ${layout.pageSize}, and the first one is nobody's`;
  return spaceOf(layout, budget).refusal(1, finalLength);
}

/** An empty space of the layout within the budget. */
export function spaceOf(layout: CapacityLayout, budget: Budget): KvSpace {
  const usable = usableTokens(layout, budget);
  if (layout.layout === "pages") {
    const { pageSize, prefixCache } = layout;
    return new PagedSpace({ pages: usable / pageSize, pageSize, prefixCache, watermark: budget.watermark });
  }
  const policy = layout.layout === "strips-max" ? "max" : "exact";
  return new StripSpace({ slots: usable, policy, maxLength: budget.maxSeqLen });
}

export interface MixOptions {
  readonly numPrompts: number;
  readonly inputLen: Lengths;
  readonly outputLen: Lengths;
  /** Of the shared-prefix mix. */
  readonly prefixLen: number;
  readonly vocabSize: number;
  readonly maxSeqLen: number;
  readonly seed: number | bigint;
}

/** The requests of a mix, all there from the beginning. Throws BadInput for lengths that do not fit. */
export function mixRequests(mix: Mix, options: MixOptions): WorkloadRequest[] {
  const { maxSeqLen, prefixLen, ...rest } = options;
  if (mix === "shared-prefix" && prefixLen + 2 > maxSeqLen)
    throw new BadInput(
      `--prefix-len is ${prefixLen}; with a prompt and an answer of at least a token each it must be below ` +
        `--max-seq-len ${maxSeqLen} - 1`,
    );
  return randomWorkload({
    ...rest,
    prefixLen: mix === "shared-prefix" ? prefixLen : 0,
    contextLength: maxSeqLen,
    requestRate: Number.POSITIVE_INFINITY,
  });
}
