import { BadInput } from "../check.ts";
import { DEFAULT_PAGE_SIZE, validatePageSize } from "../kv/page-table.ts";
import type { EngineOptions, KvLayout, Preemption } from "./engine-types.ts";

/** EngineOptions with every default filled in and every bound checked. */
export interface EngineSettings {
  readonly layout: KvLayout;
  readonly kvDtype: "f32" | "f16";
  /** 1 where there are no pages. */
  readonly pageSize: number;
  readonly kvPages: number | undefined;
  readonly kvBytes: number | undefined;
  readonly maxSeqLen: number;
  readonly maxSequences: number;
  readonly maxBatchedTokens: number;
  readonly chunkedPrefill: boolean;
  readonly prefixCache: boolean;
  readonly preemption: Preemption;
  readonly watermark: number;
  readonly async: boolean;
}

const LAYOUTS: readonly KvLayout[] = ["pages", "strips-max", "strips-exact"];
export const MAX_SEQUENCES = 256;
const MAX_SEQUENCES_LIMIT = 4096;
/** A step this long keeps a GPU busy; on a CPU that plays GPU it would take a second and more. */
const MAX_BATCHED_TOKENS = { gpu: 2048, software: 256 };
/** Rows of a step are one dimension of some dispatches. */
const MAX_BATCHED_TOKENS_LIMIT = 65_535;
export const WATERMARK = 0.01;

/**
 * Check the options and fill in the defaults, for a model of `contextLength` tokens.
 * Throws BadInput that names the option, what was given and what was wanted.
 */
export function engineSettings(
  options: EngineOptions,
  contextLength: number,
  forms: "gpu" | "software",
): EngineSettings {
  const { layout = "pages", kvDtype = "f32", preemption = "recompute", watermark = WATERMARK } = options;
  oneOf("layout", layout, LAYOUTS);
  oneOf("kvDtype", kvDtype, ["f32", "f16"]);
  oneOf("preemption", preemption, ["recompute", "swap"]);
  const isPaged = layout === "pages";
  const pageSize = options.pageSize ?? DEFAULT_PAGE_SIZE;
  validatePageSize(pageSize);
  const maxSeqLen = options.maxSeqLen ?? contextLength;
  integer("maxSeqLen", maxSeqLen, 2, contextLength, ", the model's context");
  const maxSequences = options.maxSequences ?? MAX_SEQUENCES;
  integer("maxSequences", maxSequences, 1, MAX_SEQUENCES_LIMIT);
  const chunkedPrefill = options.chunkedPrefill ?? true;
  const wholePrompts = chunkedPrefill ? 1 : maxSeqLen;
  const maxBatchedTokens =
    options.maxBatchedTokens ?? Math.max(MAX_BATCHED_TOKENS[forms], chunkedPrefill ? 1 : maxSeqLen);
  integer("maxBatchedTokens", maxBatchedTokens, 1, MAX_BATCHED_TOKENS_LIMIT);
  if (maxBatchedTokens < wholePrompts)
    throw new BadInput(
      `maxBatchedTokens is ${maxBatchedTokens} and chunkedPrefill is false; a prompt of up to maxSeqLen ${maxSeqLen} tokens must then ` +
        "fit into one step: raise maxBatchedTokens, lower maxSeqLen, or leave chunkedPrefill on",
    );
  if (options.kvPages !== undefined && options.kvBytes !== undefined)
    throw new BadInput("kvPages and kvBytes are both given; wanted one of them");
  if (options.kvPages !== undefined && !isPaged)
    throw new BadInput(`kvPages is given and layout is ${layout}, which has no pages; give kvBytes`);
  if (options.kvPages !== undefined) integer("kvPages", options.kvPages, 1);
  if (options.kvBytes !== undefined) integer("kvBytes", options.kvBytes, 1);
  if (!(watermark >= 0 && watermark < 1))
    throw new BadInput(`watermark is ${watermark}; wanted a share of the pages, from 0 to below 1`);
  return {
    layout,
    kvDtype,
    pageSize: isPaged ? pageSize : 1,
    kvPages: options.kvPages,
    kvBytes: options.kvBytes,
    maxSeqLen,
    maxSequences,
    maxBatchedTokens,
    chunkedPrefill,
    prefixCache: isPaged && (options.prefixCache ?? true),
    preemption,
    watermark,
    async: options.async ?? forms === "gpu",
  };
}

function oneOf(name: string, value: string, words: readonly string[]): void {
  if (!words.includes(value)) throw new BadInput(`${name} is "${value}"; wanted ${words.join(", ")}`);
}

function integer(name: string, value: number, min: number, max = Number.MAX_SAFE_INTEGER, why = ""): void {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return;
  const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}${why}`;
  throw new BadInput(`${name} is ${value}; wanted an integer ${range}`);
}
