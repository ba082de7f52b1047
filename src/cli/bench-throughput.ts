import { resolve } from "node:path";
import process from "node:process";
import type { Command } from "commander";
import { describeModel } from "../bench/describe-model.ts";
import { environment } from "../bench/environment.ts";
import {
  type MeasuredThroughput,
  measureThroughput,
  rehearsal,
  type ThroughputOptions,
  untilWarm,
} from "../bench/throughput.ts";
import { completeThroughput } from "../bench/throughput-conclude.ts";
import { writeThroughput } from "../bench/throughput-report.ts";
import type { RunDescription, ThroughputResults } from "../bench/throughput-results.ts";
import { throughputText } from "../bench/throughput-table.ts";
import { lengthsText, randomWorkload, type WorkloadRequest } from "../bench/workload.ts";
import { type DatasetLine, datasetWorkload, parseDataset } from "../bench/workload-dataset.ts";
import { prepareResultsDir, resultsFolder } from "../bench/write-results.ts";
import { BadInput } from "../check.ts";
import { Engine } from "../generate/engine.ts";
import type { Gpu } from "../gpu/gpu.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import { loadTokenizer } from "../tokenizer.ts";
import { engineOptions, inFlagNames } from "./engine-options.ts";
import { interruptible } from "./exit.ts";
import { openOptions, samplingOptions } from "./options.ts";
import { progressBar } from "./progress.ts";
import { readText } from "./read-text.ts";
import {
  addThroughputOptions,
  checkDatasetFlags,
  lengthsFor,
  type PlannedLengths,
  planText,
  type ThroughputFlags,
} from "./throughput-options.ts";
import { checkVocabulary, withGpu, withModel } from "./with-gpu.ts";

/** `quire bench throughput`: many requests through one engine, with the JSON names of `vllm bench serve`. */
export function addBenchThroughput(bench: Command): void {
  const command = bench
    .command("throughput")
    .summary("many requests through one engine, as vllm bench serve")
    .description(
      "Many requests through one engine: tokens and requests a second, times to the first token and between tokens, memory of keys and values.\n" +
        "JSON names are those of vllm bench serve where the meaning is the same.\n" +
        "Lengths are a number of tokens, uniform:10-50, or lognormal:200,1, whose mean is that before lengths are clipped to the context.",
    );
  addThroughputOptions(command).action((flags) => inFlagNames(() => run(flags)));
}

async function run(flags: ThroughputFlags): Promise<void> {
  checkDatasetFlags(flags);
  const lines =
    flags.dataset === undefined
      ? undefined
      : parseDataset(readText("--dataset", flags.dataset), flags.dataset);
  await prepareResultsDir(flags.out);
  await interruptible((signal) =>
    withGpu(openOptions(flags), (gpu) =>
      withModel(gpu, flags, async (model, folder) => {
        const lengths = lengthsFor(flags, gpu.info.software);
        const requests = await workload(model, folder, lines, flags, lengths);
        const description = describeModel(model, folder, flags.dtype, flags.kvDtype);
        const log = (line: string) => process.stderr.write(`quire: ${line}\n`);
        if (gpu.info.software && lines === undefined && lengths.isChosen)
          log(`small, for a CPU: ${planText(lengths)}`);
        const engine = await Engine.open(model, { ...engineOptions(flags), log });
        try {
          const warmups = warmUpCount(requests, engine, flags);
          const measured = await measure(model, engine, requests, warmups, flags, signal);
          const results = completeThroughput(measured, {
            run: describeRun(requests, flags),
            memory: describeMemory(gpu, engine),
            environment: environment(gpu),
            model: description,
            options: describeOptions(engine, lengths, warmups, flags),
          });
          await report(results, measured, flags);
          if (measured.error) throw measured.error;
        } finally {
          await engine.close();
        }
      }),
    ),
  );
}

/** Write the files, print the table. */
async function report(
  results: ThroughputResults,
  measured: MeasuredThroughput,
  flags: ThroughputFlags,
): Promise<void> {
  // Print first: a full disk must not cost the figures.
  const text = flags.json ? JSON.stringify(results, null, 1) : throughputText(results);
  process.stdout.write(`${text}\n`);
  const out = resultsFolder(flags.out, results.incomplete !== undefined);
  const files = await writeThroughput(out, results, measured);
  process.stderr.write(`quire: wrote ${files.length} files to ${resolve(out)}; open report.html\n`);
}

/** Warm up, then measure. Throws what ended the warm-up, and why nothing could be run. */
async function measure(
  { config, gpu }: Gpt2,
  engine: Engine,
  requests: readonly WorkloadRequest[],
  warmups: number,
  flags: ThroughputFlags,
  signal: AbortSignal,
): Promise<MeasuredThroughput> {
  const options: ThroughputOptions = {
    sampling: samplingOptions(flags),
    ignoreEos: flags.ignoreEos,
    maxConcurrency: flags.maxConcurrency,
    signal,
  };
  const run = (some: readonly WorkloadRequest[], what: string) => {
    const bar = progressBar(what);
    const onProgress = (done: number, total: number, running: number) =>
      bar.show(done, total, `${running} running`);
    return measureThroughput(engine, some, { ...options, onProgress }).finally(bar.stop);
  };
  const others = rehearsal(requests, warmups, config.vocabSize);
  await untilWarm(gpu.info.software || warmups === 0, async () => {
    const { error } = await run(others, "requests of the warm-up");
    if (error) throw error;
  });
  gpu.memory.resetPeak();
  const measured = await run(requests, "requests");
  if (measured.steps.length === 0) throw measured.error ?? new BadInput(measured.refused[0]!.reason);
  return measured;
}

/** Some of the first requests: twice as many as run at once show how they come, go and end. */
function warmUpCount(
  requests: readonly WorkloadRequest[],
  { settings }: Engine,
  flags: ThroughputFlags,
): number {
  return Math.min(requests.length, flags.numWarmups ?? 2 * settings.maxSequences);
}

async function workload(
  { config }: Gpt2,
  folder: string,
  lines: readonly DatasetLine[] | undefined,
  flags: ThroughputFlags,
  lengths: PlannedLengths,
): Promise<WorkloadRequest[]> {
  const { requestRate, burstiness, seed, prefixLen } = flags;
  const options = {
    ...lengths,
    requestRate,
    burstiness,
    seed,
    prefixLen,
    vocabSize: config.vocabSize,
    contextLength: Math.min(config.contextLength, flags.maxSeqLen ?? config.contextLength),
  };
  if (lines === undefined) return randomWorkload(options);
  const encode = lines.some((line) => typeof line.prompt === "string")
    ? await encoder(config, folder)
    : () => [];
  return datasetWorkload(lines, flags.dataset!, { ...options, numPrompts: flags.numPrompts, encode });
}

async function encoder(config: Gpt2["config"], folder: string): Promise<(text: string) => readonly number[]> {
  const tokenizer = await loadTokenizer(folder);
  checkVocabulary(tokenizer, config, folder);
  return (text) => tokenizer.encode(text);
}

function describeRun(requests: readonly WorkloadRequest[], flags: ThroughputFlags): RunDescription {
  const orInf = (value: number) => (value === Number.POSITIVE_INFINITY ? ("inf" as const) : value);
  return {
    date: localDate(new Date()),
    backend: "quire",
    model_id: flags.model,
    num_prompts: requests.length,
    request_rate: orInf(flags.requestRate),
    burstiness: orInf(flags.burstiness),
    max_concurrency: flags.maxConcurrency ?? null,
  };
}

/** 20261123-181530, as vLLM writes it. */
function localDate(now: Date): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const day = `${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}`;
  return `${day}-${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`;
}

function describeMemory({ memory: ledger }: Gpu, { memory }: Engine): ThroughputResults["memory"] {
  return {
    peak_bytes: ledger.peak,
    peak_by_purpose: ledger.peakByPurpose,
    kv_bytes: memory.kvBytes,
    max_concurrency: memory.maxConcurrency,
  };
}

function describeOptions(
  { settings }: Engine,
  { inputLen, outputLen }: PlannedLengths,
  warmups: number,
  flags: ThroughputFlags,
): ThroughputResults["options"] {
  return {
    dataset: flags.dataset ?? null,
    input_len: flags.dataset === undefined ? lengthsText(inputLen) : null,
    output_len: lengthsText(outputLen),
    prefix_len: flags.prefixLen,
    num_warmups: warmups,
    percentiles: [...flags.percentiles],
    ignore_eos: flags.ignoreEos,
    kv_layout: settings.layout,
    page_size: settings.pageSize,
    max_seq_len: settings.maxSeqLen,
    max_sequences: settings.maxSequences,
    max_batched_tokens: settings.maxBatchedTokens,
    chunked_prefill: settings.chunkedPrefill,
    prefix_cache: settings.prefixCache,
    preemption: settings.preemption,
    watermark: settings.watermark,
    async: settings.async,
    temperature: flags.temperature,
    top_k: flags.topK,
    top_p: flags.topP,
    min_p: flags.minP,
    repetition_penalty: flags.repetitionPenalty,
    seed: String(flags.seed),
    kernels: flags.kernels,
  };
}
