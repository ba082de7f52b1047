import { resolve } from "node:path";
import process from "node:process";
import type { Command } from "commander";
import { describeModel } from "../bench/describe-model.ts";
import { environment } from "../bench/environment.ts";
import { timingOf } from "../bench/kv.ts";
import { checkLatencyLengths, type MeasuredLatency, measureLatency } from "../bench/latency.ts";
import {
  LATENCY_RESULTS,
  LATENCY_SCHEMA,
  type LatencyResults,
  latencyFigures,
} from "../bench/latency-results.ts";
import { latencyText } from "../bench/latency-table.ts";
import { TIMINGS, type Timing } from "../bench/results.ts";
import { prepareResultsFile, writeResultsFile } from "../bench/write-results.ts";
import type { CacheMode } from "../kv/cache.ts";
import { DEFAULT_PAGE_SIZE } from "../kv/page-table.ts";
import { interruptible } from "./exit.ts";
import {
  addGpuOptions,
  addKvOption,
  addModelOptions,
  addSamplerOptions,
  type GpuFlags,
  integer,
  type ModelFlags,
  oneOf,
  openOptions,
  prefillChunkOption,
  type SamplerFlags,
  samplingOptions,
} from "./options.ts";
import { progressBar } from "./progress.ts";
import { withGpu, withModel } from "./with-gpu.ts";

interface BenchLatencyFlags extends GpuFlags, ModelFlags, SamplerFlags {
  readonly batchSize: number;
  readonly inputLen: number;
  readonly outputLen: number;
  readonly numItersWarmup: number;
  readonly numIters: number;
  readonly timing: Timing;
  readonly kv: CacheMode;
  readonly pageSize: number;
  readonly prefillChunk: number;
  readonly json?: boolean;
  readonly out?: string;
}

/** `quire bench latency`: one batch, again and again, with the options and the JSON names of `vllm bench latency`. */
export function addBenchLatency(bench: Command): void {
  const command = bench
    .command("latency")
    .summary("one batch of random prompts, again and again, as vllm bench latency")
    .description(
      "The latency of one batch: random prompts of one length, a fixed number of new tokens, end-of-text tokens ignored.\n" +
        "Options and JSON names are those of vllm bench latency where the meaning is the same.\n" +
        "Without a GPU the defaults take minutes: --num-iters 3 --num-iters-warmup 1.",
    )
    .option("--batch-size <n>", "sequences", integer("--batch-size", 1, 1024), 1)
    .option("--input-len <tokens>", "tokens of each prompt", integer("--input-len", 1), 32)
    .option("--output-len <tokens>", "new tokens of each sequence", integer("--output-len", 1), 128)
    .option(
      "--num-iters-warmup <n>",
      "iterations that are not measured",
      integer("--num-iters-warmup", 0, 10_000),
      10,
    )
    .option("--num-iters <n>", "measured iterations", integer("--num-iters", 1, 10_000), 30)
    .option(
      "--timing <how>",
      "pipelined: steps run ahead; visible: wait for each token (--kv none: always visible)",
      oneOf("--timing", TIMINGS),
      "pipelined",
    )
    .option(
      "--page-size <slots>",
      "tokens in a page of the paged cache, 8 to 256",
      integer("--page-size", 8, 256),
      DEFAULT_PAGE_SIZE,
    )
    .addOption(prefillChunkOption())
    .option("--out <file>", "write the results as JSON to this file too")
    .option("--json", "print the results as JSON instead of the table");
  addModelOptions(command);
  addKvOption(command);
  addSamplerOptions(command);
  addGpuOptions(command, "fast");
  command.action(run);
}

async function run(flags: BenchLatencyFlags): Promise<void> {
  // A bad path must fail before the measuring, not after it.
  if (flags.out !== undefined) await prepareResultsFile(flags.out);
  await interruptible((signal) =>
    withGpu(openOptions(flags), (gpu) =>
      withModel(gpu, flags, async (model, folder) => {
        checkLatencyLengths(model, flags);
        if (gpu.info.software)
          process.stderr.write(
            "quire: bench latency on a CPU takes minutes; --num-iters 3 --num-iters-warmup 1 is enough to see it work\n",
          );
        const description = describeModel(model, folder, flags.dtype, flags.kvDtype);
        const bar = progressBar("iterations");
        const measured = await measureLatency(model, {
          ...flags,
          warmup: flags.numItersWarmup,
          iterations: flags.numIters,
          sampling: samplingOptions(flags),
          signal,
          onIteration: bar.show,
        }).finally(bar.stop);
        // Without a finished iteration there is nothing to tell.
        if (measured.iterations.length === 0) throw measured.error;
        const results = LATENCY_RESULTS.parse({
          schema: LATENCY_SCHEMA,
          ...latencyFigures(measured.iterations, measured.shape),
          ...environment(gpu),
          model: description,
          options: describeOptions(flags),
          ...incomplete(measured),
        });
        const json = `${JSON.stringify(results, null, 1)}\n`;
        process.stdout.write(flags.json ? json : `${latencyText(results)}\n`);
        if (flags.out !== undefined) {
          await writeResultsFile(flags.out, json);
          process.stderr.write(`quire: wrote ${resolve(flags.out)}\n`);
        }
        if (measured.error) throw measured.error;
      }),
    ),
  );
}

function incomplete({ error }: MeasuredLatency): Pick<LatencyResults, "incomplete"> {
  return error ? { incomplete: error.message } : {};
}

function describeOptions(flags: BenchLatencyFlags): LatencyResults["options"] {
  return {
    batch_size: flags.batchSize,
    input_len: flags.inputLen,
    output_len: flags.outputLen,
    num_iters_warmup: flags.numItersWarmup,
    num_iters: flags.numIters,
    timing: timingOf(flags.kv, flags.timing),
    kv: flags.kv,
    page_size: flags.pageSize,
    prefill_chunk: flags.prefillChunk,
    temperature: flags.temperature,
    top_k: flags.topK,
    top_p: flags.topP,
    min_p: flags.minP,
    repetition_penalty: flags.repetitionPenalty,
    seed: String(flags.seed),
    kernels: flags.kernels,
  };
}
