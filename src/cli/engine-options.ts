import type { Command } from "commander";
import { BadInput } from "../check.ts";
import type { EngineOptions, KvLayout, Preemption } from "../generate/engine-types.ts";
import { type CacheFlags, integer, number, oneOf, size } from "./options.ts";

// Options of the commands that have an Engine: what `addCacheOptions` (options.ts) does not have.

export interface EngineFlags {
  readonly kvMemory?: number;
  readonly kvLayout?: KvLayout;
  readonly maxSequences?: number;
  readonly maxBatchedTokens?: number;
  /** False with --no-chunked-prefill. */
  readonly chunkedPrefill: boolean;
  /** False with --no-prefix-cache. */
  readonly prefixCache: boolean;
  readonly preemption?: Preemption;
  readonly watermark?: number;
  /** --async or --no-async; undefined where neither was given. */
  readonly async?: boolean;
}

/**
 * --kv-memory, --kv-layout, --max-sequences, --max-batched-tokens, --no-chunked-prefill, --no-prefix-cache, --preemption,
 * --watermark, --async, --no-async. The pages' size and number and --max-seq-len come from `addCacheOptions`.
 */
export function addEngineOptions(command: Command): Command {
  return command
    .option(
      "--kv-memory <size>",
      "GPU memory for keys and values, such as 2GiB, instead of --kv-pages (default: what --memory leaves)",
      size("--kv-memory"),
    )
    .option(
      "--kv-layout <layout>",
      "pages; or strips-max, strips-exact: a strip of the longest or of its own final length for each sequence (default: pages)",
      oneOf("--kv-layout", ["pages", "strips-max", "strips-exact"]),
    )
    .option(
      "--max-sequences <n>",
      "most sequences in a step (default: 256)",
      integer("--max-sequences", 1, 4096),
    )
    .option(
      "--max-batched-tokens <n>",
      "most new tokens in a step (default: 2048, on the software adapter 256)",
      integer("--max-batched-tokens", 1, 65_535),
    )
    .option("--no-chunked-prefill", "compute every prompt in one step")
    .option("--no-prefix-cache", "do not share the pages of equal beginnings")
    .option(
      "--preemption <how>",
      "what happens to a sequence that must make room: recompute, or swap its pages to the host (default: recompute)",
      oneOf("--preemption", ["recompute", "swap"]),
    )
    .option(
      "--watermark <share>",
      "share of the pages that stay free when a request is admitted (default: 0.01)",
      number("--watermark", 0, 0.9),
    )
    .option("--async", "submit a step before the tokens of the one before are known (default: on a GPU)")
    .option("--no-async", "wait for each step's tokens before the next is submitted");
}

/** What the flags say, as Engine.open takes it; what was not given is the engine's default. */
export function engineOptions(
  flags: EngineFlags & CacheFlags & { readonly kvDtype: "f32" | "f16" },
): EngineOptions {
  return {
    layout: flags.kvLayout,
    kvDtype: flags.kvDtype,
    pageSize: flags.pageSize,
    kvPages: flags.kvPages,
    kvBytes: flags.kvMemory,
    maxSeqLen: flags.maxSeqLen,
    maxSequences: flags.maxSequences,
    maxBatchedTokens: flags.maxBatchedTokens,
    chunkedPrefill: flags.chunkedPrefill,
    prefixCache: flags.prefixCache,
    preemption: flags.preemption,
    watermark: flags.watermark,
    async: flags.async,
  };
}

/** What the engine calls its options, and how the command line says it. */
const FLAG_NAMES: readonly (readonly [RegExp, string])[] = [
  [/(?:turn|leave) chunkedPrefill on/g, "leave --no-chunked-prefill out"],
  [/chunkedPrefill is false/g, "--no-chunked-prefill is given"],
  [/\bkvBytes\b/g, "--kv-memory"],
  [/\bkvPages\b/g, "--kv-pages"],
  [/\bkvDtype\b/g, "--kv-dtype"],
  [/\bmaxSeqLen\b/g, "--max-seq-len"],
  [/\bmaxSequences\b/g, "--max-sequences"],
  [/\bmaxBatchedTokens\b/g, "--max-batched-tokens"],
  [/\blayout is\b/g, "--kv-layout is"],
  [/\b(n|beams)(?= is \d)/g, "--$1"],
  [/\blower (n|beams)\b/g, "lower --$1"],
];

/** Run what uses an Engine: a BadInput of its own names options, and is thrown on with flags instead. */
export async function inFlagNames<T>(action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (!(error instanceof BadInput)) throw error;
    let { message } = error;
    for (const [name, flag] of FLAG_NAMES) message = message.replace(name, flag);
    throw new BadInput(message);
  }
}
