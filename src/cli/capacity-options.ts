import { type Command, Option } from "commander";
import { MIXES, type Mix } from "../bench/capacity-cases.ts";
import { MEASURES, type Measure } from "../bench/capacity-results.ts";
import { type Lengths, lengthsText, parseLengths } from "../bench/workload.ts";
import { BadInput } from "../check.ts";
import type { Preemption } from "../generate/engine-types.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { kvBytesPerToken, type ModelConfig } from "../model/config.ts";
import { type GpuFlags, integer, type ModelFlags, number, oneOf, seed, size } from "./options.ts";

// The options of `quire bench capacity`, and what the defaults are on a GPU and on a CPU that plays one.

export interface BenchCapacityFlags extends GpuFlags, ModelFlags {
  readonly mix: readonly Mix[];
  readonly numPrompts?: number;
  readonly inputLen?: Lengths;
  readonly outputLen?: Lengths;
  readonly prefixLen?: number;
  readonly maxSeqLen?: number;
  readonly kvTokens?: number;
  readonly kvMemory?: number;
  readonly pageSizes: readonly number[];
  readonly maxSequences: number;
  readonly maxBatchedTokens?: number;
  readonly watermark: number;
  readonly preemption: Preemption;
  readonly measure?: Measure;
  readonly async?: boolean;
  readonly warmup?: boolean;
  readonly seed: number | bigint;
  readonly out: string;
  readonly json?: boolean;
}

/** What the flags leave open. A CPU that plays GPU computes some hundred tokens a second, all rows together. */
const DEFAULTS = {
  gpu: {
    numPrompts: 256,
    inputLen: { kind: "lognormal", mean: 200, sigma: 1 },
    outputLen: { kind: "lognormal", mean: 200, sigma: 1 },
    prefixLen: 512,
    maxSeqLen: Number.POSITIVE_INFINITY,
    strips: 16,
    maxBatchedTokens: 2048,
    measure: "all",
    isSoftware: false,
  },
  software: {
    numPrompts: 20,
    inputLen: { kind: "lognormal", mean: 32, sigma: 1 },
    outputLen: { kind: "lognormal", mean: 20, sigma: 1 },
    prefixLen: 48,
    maxSeqLen: 256,
    strips: 3,
    maxBatchedTokens: 256,
    measure: "few",
    isSoftware: true,
  },
} as const;

const DEFAULT_PAGE_SIZES = [8, 16, 32, 64, 256];

/** All options of its own. */
export function addCapacityOptions(command: Command): Command {
  const { gpu, software } = DEFAULTS;
  const either = (text: (d: typeof gpu | typeof software) => string | number) =>
    `(default: ${text(gpu)}; on the software adapter ${text(software)})`;
  return command
    .addOption(
      new Option("--mix <list>", `mixes of requests, separated by commas: ${MIXES.join(", ")}`)
        .default([...MIXES], MIXES.join(","))
        .argParser(mixList),
    )
    .option(
      "--num-prompts <n>",
      `requests of each mix ${either((d) => d.numPrompts)}`,
      integer("--num-prompts", 1, 100_000),
    )
    .option(
      "--input-len <lengths>",
      `tokens of the prompts: 200, uniform:10-50, or lognormal:mean,sigma ${either((d) => lengthsText(d.inputLen))}`,
      (text) => parseLengths("--input-len", text),
    )
    .option(
      "--output-len <lengths>",
      `new tokens, likewise ${either((d) => lengthsText(d.outputLen))}`,
      (text) => parseLengths("--output-len", text),
    )
    .option(
      "--prefix-len <tokens>",
      `tokens in front of every prompt of the shared-prefix mix ${either((d) => d.prefixLen)}`,
      integer("--prefix-len", 1),
    )
    .option(
      "--max-seq-len <tokens>",
      "most tokens of a request, and the maximum length of a strip (default: the model's context; on the software adapter 256)",
      integer("--max-seq-len", 2),
    )
    .option(
      "--kv-tokens <slots>",
      `the budget ${either((d) => `${d.strips} times the maximum length`)}`,
      integer("--kv-tokens", 1),
    )
    .option("--kv-memory <size>", "the budget in bytes instead, such as 2GiB", size("--kv-memory"))
    .addOption(
      new Option("--page-sizes <list>", "slots of a page, 8 to 256, separated by commas")
        .default(DEFAULT_PAGE_SIZES, DEFAULT_PAGE_SIZES.join(","))
        .argParser(pageSizeList),
    )
    .option(
      "--max-sequences <n>",
      "most sequences in a step, in every layout",
      integer("--max-sequences", 1, 4096),
      512,
    )
    .option(
      "--max-batched-tokens <n>",
      `most new tokens in a step ${either((d) => d.maxBatchedTokens)}`,
      integer("--max-batched-tokens", 1, 65_535),
    )
    .option(
      "--watermark <share>",
      "share of the pages that stay free when a request is admitted",
      number("--watermark", 0, 0.9),
      0.01,
    )
    .option(
      "--preemption <how>",
      "what happens to a sequence that must make room: recompute, or swap",
      oneOf("--preemption", ["recompute", "swap"]),
      "recompute",
    )
    .option(
      "--measure <rows>",
      `rows that run the model: all; few: strips and pages of 16; none ${either((d) => d.measure)}`,
      oneOf("--measure", MEASURES),
    )
    .option("--async", "submit a step before the tokens of the one before are known (default: on a GPU)")
    .option("--no-async", "wait for each step's tokens before the next is submitted")
    .option("--warmup", "run other requests before each measured row, which compile its kernels (default)")
    .option("--no-warmup", "do not")
    .option("--seed <n>", "same seed, same requests", seed, 0)
    .option(
      "--out <folder>",
      "where results.json, CSVs, charts, page maps and report.html go",
      "results/bench-capacity",
    )
    .option("--json", "print results.json to stdout instead of the table");
}

/** What `settle` made of the flags. */
export type SettledCapacity = ReturnType<typeof settle>;

/** The flags with what they leave open, which depends on model and adapter. */
export function settle(flags: BenchCapacityFlags, config: ModelConfig, gpu: Gpu | undefined) {
  const open = gpu?.info.software ? DEFAULTS.software : DEFAULTS.gpu;
  const { contextLength } = config;
  const maxSeqLen = flags.maxSeqLen ?? Math.min(contextLength, open.maxSeqLen);
  if (maxSeqLen > contextLength)
    throw new BadInput(`--max-seq-len is ${maxSeqLen}; at most the model's context of ${contextLength}`);
  if (flags.kvTokens !== undefined && flags.kvMemory !== undefined)
    throw new BadInput("--kv-tokens and --kv-memory are both given; wanted one of them");
  const slot = kvBytesPerToken(config, flags.kvDtype === "f32" ? 4 : 2);
  const fromBytes = flags.kvMemory === undefined ? undefined : Math.floor(flags.kvMemory / slot);
  const kvTokens = flags.kvTokens ?? fromBytes ?? open.strips * maxSeqLen;
  if (kvTokens < maxSeqLen)
    throw new BadInput(
      `the budget is ${kvTokens} slots of ${slot} bytes; a strip of the maximum length is ${maxSeqLen}: raise --kv-tokens or ` +
        "--kv-memory, or lower --max-seq-len",
    );
  return {
    numPrompts: flags.numPrompts ?? open.numPrompts,
    inputLen: flags.inputLen ?? open.inputLen,
    outputLen: flags.outputLen ?? open.outputLen,
    prefixLen: flags.prefixLen ?? Math.min(open.prefixLen, Math.floor(maxSeqLen / 2)),
    maxSeqLen,
    kvTokens,
    pageSizes: flags.pageSizes,
    maxSequences: flags.maxSequences,
    maxBatchedTokens: flags.maxBatchedTokens ?? open.maxBatchedTokens,
    watermark: flags.watermark,
    preemption: flags.preemption,
    measure: flags.measure ?? open.measure,
    async: flags.async ?? !open.isSoftware,
    warmup: flags.warmup ?? true,
    seed: flags.seed,
  };
}

function mixList(text: string): Mix[] {
  return listOf("--mix", text, oneOf("--mix", MIXES));
}

function pageSizeList(text: string): number[] {
  return listOf("--page-sizes", text, integer("--page-sizes", 8, 256));
}

function listOf<T>(flag: string, text: string, parse: (word: string) => T): T[] {
  const words = text.split(",").map((s) => parse(s.trim()));
  const twice = words.find((w, i) => words.indexOf(w) !== i);
  if (twice !== undefined) throw new BadInput(`${flag} names ${twice} twice`);
  return words;
}
