import { resolve } from "node:path";
import process from "node:process";
import type { Command } from "commander";
import { type CapacityRuns, runCapacity } from "../bench/capacity.ts";
import { type Mix, mixRequests } from "../bench/capacity-cases.ts";
import { completeCapacity } from "../bench/capacity-conclude.ts";
import { writeCapacity } from "../bench/capacity-files.ts";
import { CAPACITY_RESULTS, type CapacityMix, type CapacityResults } from "../bench/capacity-results.ts";
import { capacityText } from "../bench/capacity-table.ts";
import { describeConfig, describeModel } from "../bench/describe-model.ts";
import { environment, hostEnvironment } from "../bench/environment.ts";
import { lengthsText, type WorkloadRequest } from "../bench/workload.ts";
import { prepareResultsDir, resultsFolder } from "../bench/write-results.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { loadConfig, type ModelConfig } from "../model/config.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import {
  addCapacityOptions,
  type BenchCapacityFlags,
  type SettledCapacity,
  settle,
} from "./capacity-options.ts";
import { interruptible } from "./exit.ts";
import { addGpuOptions, addModelOptions, modelFolder, openOptions } from "./options.ts";
import { progressBar } from "./progress.ts";
import { withGpu, withModel } from "./with-gpu.ts";

/** `quire bench capacity`: what PagedAttention is for. */
export function addBenchCapacity(bench: Command): void {
  const command = bench
    .command("capacity")
    .summary("how many sequences fit into the same memory: strips against pages")
    .description(
      "The same requests under the same KV budget, with strips of the maximum length, strips of the exact length (an oracle), and pages\n" +
        "of several sizes, with and without shared prefixes: sequences at once, fragmentation, waste, preemptions, throughput, page maps.\n" +
        "Every row is simulated, step by step, with the scheduler and the page table of the engine; --measure says which run the model too.\n" +
        "--measure none needs no GPU, and takes the defaults of one.",
    );
  addCapacityOptions(command);
  addModelOptions(command);
  addGpuOptions(command, "fast");
  command.action(run);
}

async function run(flags: BenchCapacityFlags): Promise<void> {
  await prepareResultsDir(flags.out);
  await interruptible(async (signal) => {
    if (flags.measure === "none") {
      const folder = modelFolder(flags.model);
      const config = await loadConfig(folder);
      const description = {
        ...describeConfig(config, folder, flags.dtype, flags.kvDtype),
        weightBytes: null,
      };
      return experiment({ config, description, folder }, flags, signal);
    }
    await withGpu(openOptions(flags), (gpu) =>
      withModel(gpu, flags, async (model, folder) => {
        const description = describeModel(model, folder, flags.dtype, flags.kvDtype);
        await experiment({ config: model.config, description, folder, model, gpu }, flags, signal);
      }),
    );
  });
}

/** What the rows run on; without a model they are simulated. */
interface Stage {
  readonly config: ModelConfig;
  readonly description: CapacityResults["model"];
  readonly folder: string;
  readonly model?: Gpt2;
  readonly gpu?: Gpu;
}

async function experiment(stage: Stage, flags: BenchCapacityFlags, signal: AbortSignal): Promise<void> {
  const { config, description, model, gpu } = stage;
  const options = settle(flags, config, gpu);
  const mixes = new Map(
    flags.mix.map((mix) => [mix, mixRequests(mix, { ...options, vocabSize: config.vocabSize })]),
  );
  if (gpu?.info.software && flags.measure === undefined)
    process.stderr.write(
      "quire: few and short requests, and few rows on the engine, because it is a CPU; --measure none simulates many in seconds\n",
    );
  const bar = progressBar("rows");
  const { kvTokens, maxSeqLen, watermark } = options;
  const measured = await runCapacity(model, mixes, {
    ...options,
    budget: { kvTokens, maxSeqLen, watermark },
    contextLength: maxSeqLen,
    chunkedPrefill: true,
    kvDtype: flags.kvDtype,
    signal,
    onRow: bar.show,
  }).finally(bar.stop);
  const results = completeCapacity({
    ...(gpu ? environment(gpu) : { ...hostEnvironment(), adapter: null }),
    model: description,
    options: describeOptions(options, flags, description.kvBytesPerToken),
    mixes: [...mixes].map(([mix, requests]) => describeMix(mix, requests, options.prefixLen)),
    rows: measured.runs.map(({ row }) => row),
    ...(measured.error ? { incomplete: measured.error.message } : {}),
  });
  await report(results, measured, flags);
  if (measured.error) throw measured.error;
}

/** Write the files and print the table. */
async function report(
  results: CapacityResults,
  { runs, maps }: CapacityRuns,
  flags: BenchCapacityFlags,
): Promise<void> {
  // Print first: a full disk must not cost the figures.
  if (flags.json) process.stdout.write(`${JSON.stringify(CAPACITY_RESULTS.parse(results), null, 1)}\n`);
  else process.stdout.write(`${capacityText(results, process.stdout.columns)}\n`);
  const out = resultsFolder(flags.out, results.incomplete !== undefined);
  const files = await writeCapacity(out, results, runs, maps);
  process.stderr.write(`quire: wrote ${files.length} files to ${resolve(out)}; open report.html\n`);
}

function describeOptions(
  { inputLen, outputLen, seed: number_, pageSizes, ...options }: SettledCapacity,
  flags: BenchCapacityFlags,
  slotBytes: number,
): CapacityResults["options"] {
  return {
    ...options,
    mixes: [...flags.mix],
    inputLen: lengthsText(inputLen),
    outputLen: lengthsText(outputLen),
    pageSizes: [...pageSizes],
    kvBytes: options.kvTokens * slotBytes,
    seed: String(number_),
    kernels: flags.kernels,
  };
}

function describeMix(mix: Mix, requests: readonly WorkloadRequest[], prefixLen: number): CapacityMix {
  const sum = (of: (r: WorkloadRequest) => number) => requests.reduce((n, r) => n + of(r), 0);
  return {
    mix,
    requests: requests.length,
    promptTokens: sum((r) => r.prompt.length),
    outputTokens: sum((r) => r.outputLen),
    longest: Math.max(...requests.map((r) => r.prompt.length + r.outputLen)),
    prefixTokens: mix === "shared-prefix" ? prefixLen : 0,
  };
}
