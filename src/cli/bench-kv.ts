import { resolve } from "node:path";
import process from "node:process";
import { type Command, Option } from "commander";
import { completeResults } from "../bench/conclude.ts";
import { describeModel } from "../bench/describe-model.ts";
import { environment } from "../bench/environment.ts";
import { checkCache, type KvBenchRuns, measureKv } from "../bench/kv.ts";
import type { Lang } from "../bench/labels.ts";
import { type BenchResults, TIMINGS, type Timing } from "../bench/results.ts";
import { resultsText } from "../bench/table.ts";
import { prepareResultsDir, resultsFolder, writeResults } from "../bench/write-results.ts";
import { BadInput } from "../check.ts";
import { CACHE_MODES, type CacheMode } from "../kv/cache.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import { loadTokenizer, type Tokenizer } from "../tokenizer.ts";
import { EXIT_FAILURE, interruptible } from "./exit.ts";
import {
  addCacheOptions,
  addGpuOptions,
  addModelOptions,
  addSamplingOptions,
  type CacheFlags,
  type GpuFlags,
  integer,
  type ModelFlags,
  modelFolder,
  oneOf,
  openOptions,
  prefillChunkOption,
  type SamplingFlags,
  samplingOptions,
} from "./options.ts";
import { progressBar } from "./progress.ts";
import { checkVocabulary, withGpu, withModel } from "./with-gpu.ts";

interface BenchKvFlags extends GpuFlags, ModelFlags, CacheFlags, SamplingFlags {
  readonly prompt?: string;
  readonly newTokens: number;
  readonly batch: number;
  readonly modes: readonly CacheMode[];
  readonly repeat: number;
  readonly warmup: number;
  readonly timing: Timing;
  readonly prefillChunk: number;
  readonly out: string;
  readonly lang: Lang;
  readonly json?: boolean;
}

const ENGLISH_PROMPT = "It was a dark night, and the old house stood silent at the end of the road";
const CHINESE_PROMPT = "话说天下大势，分久必合，合久必分";

/** `quire bench kv`: the three-way experiment, the main job. */
export function addBenchKv(bench: Command): void {
  const command = bench
    .command("kv")
    .summary("generation without a KV cache, with a contiguous and with a paged one")
    .description(
      "The three-way experiment: the same prompt, sampler and seed without a KV cache, with a contiguous one and with a paged one.\n" +
        "Latency and memory of every step; tables, charts and a report. Exit code 1 when the modes gave different tokens.\n" +
        "--batch 8 shows what paging is for: many sequences of different lengths, which strips of the maximum length waste.",
    )
    .option("--prompt <text>", "the text to continue (default: one in the model's language)")
    .option("-n, --new-tokens <n>", "tokens to generate", integer("--new-tokens", 1), 50)
    .option(
      "--batch <n>",
      "sequences at once, of the same prompt: sequence 0 gets all the new tokens, the others fewer, in up to 8 equal steps (of 50 for 4: 50, 38, 25, 13); sampled differently, alike with --temperature 0",
      integer("--batch", 1, 1024),
      1,
    )
    .addOption(
      new Option("--modes <list>", "modes to run, separated by commas")
        .default([...CACHE_MODES], CACHE_MODES.join(","))
        .argParser(modeList),
    )
    .option("--repeat <n>", "measured runs of each mode", integer("--repeat", 1, 1000), 1)
    .option("--warmup <n>", "runs of each mode that are not measured", integer("--warmup", 0, 1000), 1)
    .option(
      "--timing <how>",
      "visible: wait for each token, as a caller sees it; pipelined: run ahead, a step's time is its round's over its steps (mode none: always visible)",
      oneOf("--timing", TIMINGS),
      "visible",
    )
    .option("--out <folder>", "where results.json, steps.csv, charts and report.html go", "results/bench-kv")
    .option(
      "--lang <lang>",
      "language of tables, charts and report: en, zh",
      oneOf("--lang", ["en", "zh"]),
      "en",
    )
    .option("--json", "print results.json to stdout instead of the table");
  addModelOptions(command);
  addCacheOptions(command).addOption(prefillChunkOption());
  addSamplingOptions(command);
  addGpuOptions(command, "fast");
  command.action(run);
}

async function run(flags: BenchKvFlags): Promise<void> {
  const tokenizer = await loadTokenizer(modelFolder(flags.model));
  const prompt = flags.prompt ?? defaultPrompt(tokenizer);
  const promptIds = tokenizer.encode(prompt, { addSpecialTokens: flags.specialTokens });
  if (promptIds.length === 0) throw new BadInput("--prompt is empty; give at least one word");
  await prepareResultsDir(flags.out);
  await interruptible((signal) =>
    withGpu(openOptions(flags), (gpu) =>
      withModel(gpu, flags, async (model, folder) => {
        checkVocabulary(tokenizer, model.config, folder);
        checkLengths(model, promptIds, flags);
        const bar = progressBar(flags.batch > 1 ? "steps" : "tokens");
        const total = flags.modes.length * (flags.warmup + flags.repeat) * flags.newTokens;
        const measured = await measureKv(model, tokenizer, {
          ...flags,
          promptIds,
          sampling: samplingOptions(flags),
          ignoreEos: flags.ignoreEos ?? false,
          signal,
          onStep: (mode, done) => bar.show(done, total, mode),
        });
        bar.stop();
        const results = completeResults(
          {
            ...environment(gpu),
            model: describeModel(model, folder, flags.dtype, flags.kvDtype),
            options: describeOptions(model, prompt, promptIds, flags),
            ...outcome(measured),
          },
          flags.lang,
        );
        await report(results, flags);
        if (measured.error) throw measured.error;
      }),
    ),
  );
}

/** Write the files, print the table; a difference between the modes is the experiment's failure. */
async function report(results: BenchResults, flags: BenchKvFlags): Promise<void> {
  // Print first: a full disk must not cost the figures.
  if (flags.json) process.stdout.write(`${JSON.stringify(results, null, 1)}\n`);
  else process.stdout.write(`${resultsText(results, flags.lang, process.stdout.columns)}\n`);
  const out = resultsFolder(flags.out, results.incomplete !== undefined);
  const files = await writeResults(out, results, flags.lang);
  process.stderr.write(`quire: wrote ${files.length} files to ${resolve(out)}; open report.html\n`);
  if (results.sameTokens.identical === false) process.exitCode = EXIT_FAILURE;
}

function outcome({ runs, error }: KvBenchRuns): Pick<BenchResults, "runs" | "incomplete"> {
  return error ? { runs, incomplete: error.message } : { runs };
}

/** A context or a cache that the run would overrun is refused before the first measured step, not after the last mode. */
function checkLengths(model: Gpt2, promptIds: readonly number[], flags: BenchKvFlags): void {
  const { contextLength } = model.config;
  if (promptIds.length + flags.newTokens > contextLength)
    throw new BadInput(
      `the prompt has ${promptIds.length} tokens and --new-tokens is ${flags.newTokens}; together at most the model's context of ${contextLength}`,
    );
  for (const mode of flags.modes) checkCache(model, mode, { ...flags, promptIds });
}

function describeOptions(
  model: Gpt2,
  prompt: string,
  promptTokens: number[],
  flags: BenchKvFlags,
): BenchResults["options"] {
  const {
    newTokens,
    batch,
    modes,
    temperature,
    topK,
    topP,
    minP,
    repetitionPenalty,
    seed,
    repeat,
    warmup,
    timing,
    pageSize,
    prefillChunk,
    kernels,
  } = flags;
  return {
    prompt,
    promptTokens,
    newTokens,
    modes: [...modes],
    temperature,
    topK,
    topP,
    minP,
    repetitionPenalty,
    seed: String(seed),
    repeat,
    warmup,
    timing,
    pageSize,
    prefillChunk,
    maxSeqLen: flags.maxSeqLen ?? model.config.contextLength,
    kernels,
    ignoreEos: flags.ignoreEos ?? false,
    batch,
  };
}

/** A prompt in the language that the vocabulary is made for. */
function defaultPrompt(tokenizer: Tokenizer): string {
  // A byte-level vocabulary knows every text; BERT's Chinese one has single characters and few English words.
  const [first] = tokenizer.encode("话", { addSpecialTokens: false });
  return first !== undefined && tokenizer.idToToken(first) === "话" ? CHINESE_PROMPT : ENGLISH_PROMPT;
}

function modeList(text: string): CacheMode[] {
  const names = text.split(",").map((s) => s.trim());
  const modes = names.map(oneOf("--modes", CACHE_MODES));
  const twice = modes.find((m, i) => modes.indexOf(m) !== i);
  if (twice) throw new BadInput(`--modes names ${twice} twice`);
  return modes;
}
