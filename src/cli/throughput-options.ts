import { type Command, Option } from "commander";
import { CHAT_LENGTHS, type Lengths, lengthsText, parseLengths } from "../bench/workload.ts";
import { BadInput } from "../check.ts";
import { addEngineOptions, type EngineFlags } from "./engine-options.ts";
import {
  addCacheOptions,
  addGpuOptions,
  addModelOptions,
  addSamplerOptions,
  type CacheFlags,
  type GpuFlags,
  integer,
  type ModelFlags,
  number,
  type SamplerFlags,
} from "./options.ts";

// The flags of `quire bench throughput`, and what they mean for one another.

export interface ThroughputFlags extends GpuFlags, ModelFlags, CacheFlags, EngineFlags, SamplerFlags {
  readonly dataset?: string;
  readonly numPrompts?: number;
  readonly inputLen?: Lengths;
  readonly outputLen?: Lengths;
  readonly prefixLen: number;
  readonly requestRate: number;
  readonly burstiness: number;
  readonly maxConcurrency?: number;
  readonly numWarmups?: number;
  readonly percentiles: readonly number[];
  readonly ignoreEos: boolean;
  readonly out: string;
  readonly json?: boolean;
}

/** What is run where nothing is said: as many requests as vLLM's benchmark has, or what a CPU does in some seconds. */
const DEFAULTS = {
  gpu: { numPrompts: 1000, inputLen: CHAT_LENGTHS, outputLen: CHAT_LENGTHS },
  software: {
    numPrompts: 16,
    inputLen: { kind: "lognormal", mean: 24, sigma: 1 },
    outputLen: { kind: "lognormal", mean: 24, sigma: 1 },
  },
} as const;
const PERCENTILES = [50, 90, 95, 99];

/** All flags of the command. */
export function addThroughputOptions(command: Command): Command {
  const lengths = (flag: string) => (text: string) => parseLengths(flag, text);
  const { gpu, software } = DEFAULTS;
  const either = (name: "inputLen" | "outputLen") =>
    `(default: ${lengthsText(gpu[name])}, on the software adapter ${lengthsText(software[name])})`;
  command
    .option(
      "--dataset <file>",
      'JSONL instead of random prompts: {"prompt": "text"} or {"prompt_ids": […]}, with "max_tokens", "priority", "salt" if wanted',
    )
    .option(
      "--num-prompts <n>",
      `requests (default: ${gpu.numPrompts}, on the software adapter ${software.numPrompts}; all of a dataset)`,
      integer("--num-prompts", 1, 100_000),
    )
    .option("--input-len <lengths>", `tokens of random prompts ${either("inputLen")}`, lengths("--input-len"))
    .option(
      "--output-len <lengths>",
      `new tokens of requests that do not say it ${either("outputLen")}`,
      lengths("--output-len"),
    )
    .option(
      "--prefix-len <tokens>",
      "tokens that all random prompts share, in front of --input-len",
      integer("--prefix-len", 0),
      0,
    )
    .addOption(
      new Option("--request-rate <r>", "requests that arrive a second, at random; inf: all at once")
        .argParser(orInfinite("--request-rate"))
        .default(Number.POSITIVE_INFINITY, "inf"),
    )
    .option(
      "--burstiness <b>",
      "shape of the gamma distribution of gaps: 1 is a Poisson process, less is burstier, inf a metronome",
      orInfinite("--burstiness"),
      1,
    )
    .option(
      "--max-concurrency <n>",
      "most requests in the engine at once (default: no bound)",
      integer("--max-concurrency", 1),
    )
    .option(
      "--num-warmups <n>",
      "requests that run before the measuring, with other tokens, on a GPU again until 2 seconds have passed; 0: none (default: twice --max-sequences)",
      integer("--num-warmups", 0, 100_000),
    )
    .addOption(
      new Option("--percentiles <list>", "of each latency, separated by commas")
        .argParser(percentileList)
        .default(PERCENTILES, PERCENTILES.join(",")),
    )
    .option(
      "--no-ignore-eos",
      "end an answer at an end-of-text token, so that it may be shorter than planned",
    )
    .option(
      "--out <folder>",
      "where results.json, steps.csv, requests.csv, charts and report.html go",
      "results/bench-throughput",
    )
    .option("--json", "print results.json to stdout instead of the table");
  addModelOptions(command);
  addCacheOptions(command);
  addEngineOptions(command);
  addSamplerOptions(command);
  return addGpuOptions(command, "fast");
}

/** Flags that say something of random prompts contradict a dataset. */
export function checkDatasetFlags({ dataset, inputLen, prefixLen }: ThroughputFlags): void {
  if (dataset === undefined || (inputLen === undefined && prefixLen === 0)) return;
  const flag = inputLen === undefined ? "--prefix-len" : "--input-len";
  throw new BadInput(
    `--dataset and ${flag} are both given; a dataset has its own prompts: leave one of them out`,
  );
}

/** How many requests, and of which lengths. */
export interface PlannedLengths {
  readonly numPrompts: number;
  readonly inputLen: Lengths;
  readonly outputLen: Lengths;
  /** A flag did not say it. */
  readonly isChosen: boolean;
}

/** What the flags say, else what the adapter can do in some seconds. */
export function lengthsFor(flags: ThroughputFlags, isSoftware: boolean): PlannedLengths {
  const { numPrompts, inputLen, outputLen } = flags;
  const chosen = DEFAULTS[isSoftware ? "software" : "gpu"];
  return {
    numPrompts: numPrompts ?? chosen.numPrompts,
    inputLen: inputLen ?? chosen.inputLen,
    outputLen: outputLen ?? chosen.outputLen,
    isChosen: [numPrompts, inputLen, outputLen].includes(undefined),
  };
}

/** As flags. */
export function planText({ numPrompts, inputLen, outputLen }: PlannedLengths): string {
  return `--num-prompts ${numPrompts} --input-len ${lengthsText(inputLen)} --output-len ${lengthsText(outputLen)}`;
}

/** Parser of a number above 0, or inf. */
function orInfinite(flag: string) {
  const finite = number(flag, 0, Number.MAX_VALUE, { above: true });
  return (text: string): number => {
    if (text === "inf") return Number.POSITIVE_INFINITY;
    try {
      return finite(text);
    } catch {
      throw new BadInput(`${flag} is "${text}"; wanted a number above 0, or inf`);
    }
  };
}

function percentileList(text: string): number[] {
  const values = text.split(",").map(number("--percentiles", 0, 100));
  const twice = values.find((p, i) => values.indexOf(p) !== i);
  if (twice !== undefined) throw new BadInput(`--percentiles names ${twice} twice`);
  return values.sort((a, b) => a - b);
}
