import { BadInput } from "../check.ts";
import { type CacheShape, slotBytes } from "../kv/cache.ts";
import type { EngineSettings } from "./engine-settings.ts";

/** What there is to share out, in bytes. */
export interface MemoryLimits {
  /** Taken already: weights, mostly. */
  readonly before: number;
  /** The largest step: activations, tables, results on their way to the host. */
  readonly stepBytes: number;
  /** Of the Gpu (--memory); Infinity when nobody set one. */
  readonly budget: number;
  /** The largest buffer that a kernel can be given. */
  readonly maxBindingBytes: number;
}

/** What the start of an engine found room for. */
export interface EngineMemory {
  /** Bytes of keys and values, the null page included. */
  readonly kvBytes: number;
  /** Pages that sequences can have; in a space of strips their slots. */
  readonly pages: number;
  /** Tokens that they hold. */
  readonly tokens: number;
  /** Bytes that were taken before: weights, mostly. */
  readonly before: number;
  /** Bytes of the largest step. */
  readonly stepBytes: number;
  /** How many requests of `maxSeqLen` tokens fit at once. */
  readonly maxConcurrency: number;
}

/** Without a budget nobody knows what the card has: room for some full contexts, but not much of a card. */
export const DEFAULT_CONTEXTS = 16;
const DEFAULT_BYTES = 2 ** 30;

/**
 * Share out the memory: kvPages or kvBytes as they are, else what the budget leaves after what is taken and the largest
 * step. One page, the null page, is nobody's: rows that pad a step write there.
 *
 * Throws BadInput that says what is missing when there is no room for one page, or for one strip.
 */
export function planMemory(settings: EngineSettings, shape: CacheShape, limits: MemoryLimits): EngineMemory {
  const { pageSize, kvPages, maxSeqLen, layout } = settings;
  const pageBytes = pageSize * slotBytes(shape);
  const pages = kvPages ?? Math.floor(kvBytesFor(settings, shape, limits) / pageBytes) - 1;
  const least = layout === "strips-max" ? maxSeqLen : 1;
  if (pages < least) throw new BadInput(tooLittle(settings, limits, (least + 1) * pageBytes));
  const tokens = pages * pageSize;
  // A sequence's last token is never fed back, so that it needs no slot.
  const each = layout === "pages" ? Math.ceil((maxSeqLen - 1) / pageSize) : maxSeqLen;
  return {
    kvBytes: (pages + 1) * pageBytes,
    pages,
    tokens,
    before: limits.before,
    stepBytes: limits.stepBytes,
    maxConcurrency: pages / each,
  };
}

/** The lines that the start prints: where the memory goes, and how many requests of full length that is. */
export function memoryLines(memory: EngineMemory, settings: EngineSettings, limits: MemoryLimits): string[] {
  const { kvBytes, pages, tokens, before, stepBytes, maxConcurrency } = memory;
  const { layout, pageSize, kvDtype, maxSeqLen, maxSequences, maxBatchedTokens } = settings;
  const budget = Number.isFinite(limits.budget) ? `, of a budget of ${mib(limits.budget)}` : "";
  const pieces =
    layout === "pages" ? `${count(pages)} pages of ${pageSize} tokens` : `${layout} in one piece`;
  return [
    `GPU memory: ${mib(before)} taken before, ${mib(stepBytes)} for steps of up to ${count(maxBatchedTokens)} tokens of ` +
      `${count(maxSequences)} sequences, ${mib(kvBytes)} for ${kvDtype} keys and values${budget}`,
    `KV cache: ${pieces}, ${count(tokens)} tokens`,
    `At once: ${maxConcurrency.toFixed(2)} requests of ${count(maxSeqLen)} tokens, the most that one can have`,
  ];
}

function kvBytesFor(settings: EngineSettings, shape: CacheShape, limits: MemoryLimits): number {
  const { pageSize, kvBytes, maxSeqLen } = settings;
  const { before, stepBytes, budget, maxBindingBytes } = limits;
  const slot = slotBytes(shape);
  const contexts = DEFAULT_CONTEXTS * (Math.ceil(maxSeqLen / pageSize) * pageSize) + pageSize;
  const wanted =
    kvBytes ??
    (Number.isFinite(budget) ? budget - before - stepBytes : Math.min(DEFAULT_BYTES, contexts * slot));
  // Each layer's keys are one buffer, and so are its values: the device says how large one may be.
  return Math.min(wanted, maxBindingBytes * 2 * shape.layers);
}

/** Why not even the least amount has room. */
function tooLittle(settings: EngineSettings, limits: MemoryLimits, bytes: number): string {
  const { kvBytes, layout, pageSize, maxSeqLen } = settings;
  const { before, stepBytes, budget } = limits;
  const unit =
    layout === "pages"
      ? `one page of ${pageSize} tokens and the null page`
      : `one strip of ${layout === "strips-max" ? maxSeqLen : 1} tokens and the null slot`;
  if (kvBytes !== undefined)
    return `kvBytes is ${kvBytes}; ${unit} take ${bytes}: raise it, or use kvDtype f16`;
  const left = budget - before - stepBytes;
  return (
    `the memory budget of ${mib(budget)} leaves ${left < 0 ? `${mib(-left)} less than nothing` : mib(left)} for keys and values: ` +
    `${mib(before)} are taken (weights) and the largest step takes ${mib(stepBytes)}; ${unit} take ${mib(bytes)}: ` +
    "raise --memory, or lower maxBatchedTokens, maxSequences or maxSeqLen, or use smaller types (--dtype, --kv-dtype)"
  );
}

const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

const count = (value: number): string => String(value).replace(/\B(?=(\d{3})+$)/g, ",");
