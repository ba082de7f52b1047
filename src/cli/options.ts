import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Command, Option } from "commander";
import { BadInput } from "../check.ts";
import type { SamplingOptions } from "../generate/sampler.ts";
import type { OpenOptions } from "../gpu/gpu.ts";
import { CACHE_MODES } from "../kv/cache.ts";
import { WEIGHT_DTYPES, type WeightDtype } from "../model/expected-tensors.ts";
import { DEFAULT_PREFILL_CHUNK } from "../model/prefill.ts";
import { PROJECT_FOLDER } from "../packages.ts";
import { restartDenoWithoutGpu } from "./deno-restart.ts";

// Options that several commands have, said once. Every parser throws BadInput with the flag, what was given and what was
// wanted.

/** Parser of a number within bounds, for `.option(flag, text, number(...))`. */
export function number(flag: string, min: number, max: number, { integer = false, above = false } = {}) {
  const kind = integer ? "an integer" : "a number";
  const range = Number.isFinite(max)
    ? `${above ? "above" : "from"} ${min} ${above ? "up " : ""}to ${max}`
    : `${above ? "above" : "of at least"} ${min}`;
  return (text: string): number => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    const ok =
      Number.isFinite(value) &&
      (above ? value > min : value >= min) &&
      value <= max &&
      (!integer || Number.isSafeInteger(value));
    if (!ok) throw new BadInput(`${flag} is "${text}"; wanted ${kind} ${range}`);
    return value;
  };
}

export const integer = (flag: string, min: number, max = Number.POSITIVE_INFINITY) =>
  number(flag, min, max, { integer: true });

const UNITS: Record<string, number> = {
  "": 1,
  k: 1e3,
  m: 1e6,
  g: 1e9,
  t: 1e12,
  ki: 2 ** 10,
  mi: 2 ** 20,
  gi: 2 ** 30,
  ti: 2 ** 40,
};

/** "2GiB", "500MB", "1073741824" in bytes. */
export function size(flag: string) {
  return (text: string): number => {
    const [, digits, unit] = text.trim().match(/^(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?$/i) ?? [];
    const bytes =
      digits === undefined ? Number.NaN : Math.floor(Number(digits) * UNITS[(unit ?? "").toLowerCase()]!);
    if (!(bytes > 0 && Number.isSafeInteger(bytes)))
      throw new BadInput(`${flag} is "${text}"; wanted a size such as 2GiB, 500MB or 1073741824`);
    return bytes;
  };
}

/** A seed: an unsigned 64-bit integer, a bigint where a number would lose digits. */
export function seed(text: string): number | bigint {
  if (!/^\d+$/.test(text) || BigInt(text) >= 1n << 64n)
    throw new BadInput(`--seed is "${text}"; wanted an integer from 0 to 2^64 - 1`);
  const value = BigInt(text);
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
}

/** One of a few words; commander's own choices() would not name the flag in our form. */
export function oneOf<T extends string>(flag: string, words: readonly T[]) {
  return (text: string): T => {
    if (!words.includes(text as T)) throw new BadInput(`${flag} is "${text}"; wanted ${words.join(", ")}`);
    return text as T;
  };
}

export interface GpuFlags {
  readonly adapter: string;
  readonly gpuProfile: "safe" | "fast";
  readonly kernels: "auto" | "portable";
  readonly memory?: number;
}

/** --adapter, --gpu-profile, --kernels, --memory. On Deno the adapter may need another process: before the action. */
export function addGpuOptions(command: Command, profile: "safe" | "fast" = "safe"): Command {
  return command
    .hook("preAction", () => restartDenoWithoutGpu(command.opts<GpuFlags>().adapter))
    .option("--adapter <name>", "auto, gpu, software, or part of an adapter's name", "auto")
    .option(
      "--gpu-profile <name>",
      "safe checks every access; fast leaves checks out, for benchmarks",
      oneOf("--gpu-profile", ["safe", "fast"]),
      profile,
    )
    .option(
      "--kernels <tier>",
      "auto, or portable: no kernel that needs an optional feature",
      oneOf("--kernels", ["auto", "portable"]),
      "auto",
    )
    .option("--memory <size>", "most GPU memory to take, such as 2GiB (default: no limit)", size("--memory"));
}

export function openOptions(flags: GpuFlags): OpenOptions {
  return {
    adapter: flags.adapter,
    profile: flags.gpuProfile,
    kernels: flags.kernels,
    memoryBudget: flags.memory,
  };
}

export interface ModelFlags {
  readonly model: string;
  readonly dtype: WeightDtype;
  readonly kvDtype: "f32" | "f16";
  readonly strict?: boolean;
}

/** --dtype. */
export function dtypeOption(): Option {
  return new Option(
    "--dtype <type>",
    "weights on the GPU: f32, f16 packed, or int8 with a scale for each output channel",
  )
    .default("f32")
    .argParser(oneOf("--dtype", WEIGHT_DTYPES));
}

/** --prefill-chunk. */
export function prefillChunkOption(): Option {
  return new Option(
    "--prefill-chunk <rows>",
    "most tokens of prompts, all sequences together, that are computed at once; fewer take less memory, the tokens are the same (--kv none: a whole prompt at once; the engine: see --max-batched-tokens)",
  )
    .default(DEFAULT_PREFILL_CHUNK)
    .argParser(integer("--prefill-chunk", 1));
}

/** --model, --dtype, --kv-dtype, --strict. */
export function addModelOptions(command: Command): Command {
  return command
    .option("--model <path>", "a model's folder, or its name under weights/", "novels-en")
    .addOption(dtypeOption())
    .option(
      "--kv-dtype <type>",
      "keys and values on the GPU: f32, or f16 packed",
      oneOf("--kv-dtype", ["f32", "f16"]),
      "f32",
    )
    .option("--strict", "refuse weights that are NaN or infinite");
}

/** The folder of a model: a path as it is, or a name under weights/ here or in Quire's own folder. */
export function modelFolder(name: string): string {
  const places = [name, join("weights", name), join(PROJECT_FOLDER, "weights", name)];
  const found = places.find((place) => existsSync(place));
  if (!found)
    throw new BadInput(
      `--model is "${name}"; no such folder, nor weights/${name}: try "quire pull ${name}", or novels-en`,
    );
  return found;
}

export interface CacheFlags {
  readonly pageSize: number;
  readonly maxSeqLen?: number;
  readonly kvPages?: number;
}

/** --page-size, --max-seq-len, --kv-pages. */
export function addCacheOptions(command: Command): Command {
  return command
    .option(
      "--page-size <slots>",
      "tokens in a page of the paged cache, 8 to 256",
      integer("--page-size", 8, 256),
      16,
    )
    .option(
      "--max-seq-len <tokens>",
      "most tokens of a sequence in the engine, and in the contiguous cache, which reserves them all (default: the model's context)",
      integer("--max-seq-len", 1),
    )
    .option(
      "--kv-pages <count>",
      "pages in the paged cache's pool (default: what this run can need)",
      integer("--kv-pages", 1),
    );
}

export interface SamplerFlags {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly seed: number | bigint;
}

export interface SamplingFlags extends SamplerFlags {
  readonly ignoreEos?: boolean;
  readonly specialTokens: boolean;
}

/** --temperature and what else chooses the next token. */
export function addSamplerOptions(command: Command): Command {
  return command
    .option("--temperature <t>", "0 is greedy", number("--temperature", 0, Number.POSITIVE_INFINITY), 0.7)
    .option("--top-k <k>", "keep the k most likely tokens; 0 is off", integer("--top-k", 0), 0)
    .option(
      "--top-p <p>",
      "keep the most likely tokens that together have this probability; 1 is off",
      number("--top-p", 0, 1, { above: true }),
      1,
    )
    .option(
      "--min-p <p>",
      "keep tokens at least this likely relative to the best; 0 is off",
      number("--min-p", 0, 1),
      0,
    )
    .option(
      "--repetition-penalty <r>",
      "divide the scores of tokens seen before; 1 is off",
      number("--repetition-penalty", 0, Number.POSITIVE_INFINITY, { above: true }),
      1,
    )
    .option("--seed <n>", "same seed, same tokens", seed, 0);
}

/** The sampler's options, and those of a text that is generated. */
export function addSamplingOptions(command: Command): Command {
  return addSamplerOptions(command)
    .option("--ignore-eos", "go on after an end-of-text token")
    .option("--no-special-tokens", "do not let the tokenizer add its special tokens to the prompt");
}

export function samplingOptions(flags: SamplerFlags): SamplingOptions {
  const { temperature, topK, topP, minP, repetitionPenalty, seed } = flags;
  return { temperature, topK, topP, minP, repetitionPenalty, seed };
}

/** --kv with one mode. */
export function addKvOption(command: Command): Command {
  return command.addOption(
    new Option("--kv <mode>", `KV cache: ${CACHE_MODES.join(", ")}`)
      .default("paged")
      .argParser(oneOf("--kv", CACHE_MODES)),
  );
}
