import { resolve } from "node:path";
import process from "node:process";
import { type Command, Option } from "commander";
import { describeModel } from "../bench/describe-model.ts";
import { environment } from "../bench/environment.ts";
import { checkCases, type MeasuredPrefills, measurePrefills, parseCases } from "../bench/prefill.ts";
import { firstTokenRatio, type PrefillCase, prefillRow } from "../bench/prefill-figures.ts";
import { parsePeer } from "../bench/prefill-peer.ts";
import { writePrefill } from "../bench/prefill-report.ts";
import { caseName, type PeerRow, PREFILL_SCHEMA, type PrefillResults } from "../bench/prefill-results.ts";
import { prefillText } from "../bench/prefill-table.ts";
import { prepareResultsDir, resultsFolder } from "../bench/write-results.ts";
import type { CacheMode } from "../kv/cache.ts";
import { DEFAULT_PAGE_SIZE } from "../kv/page-table.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import { interruptible } from "./exit.ts";
import {
  addGpuOptions,
  addKvOption,
  addModelOptions,
  type GpuFlags,
  integer,
  type ModelFlags,
  openOptions,
  prefillChunkOption,
  seed,
} from "./options.ts";
import { progressBar } from "./progress.ts";
import { readText } from "./read-text.ts";
import { withGpu, withModel } from "./with-gpu.ts";

interface BenchPrefillFlags extends GpuFlags, ModelFlags {
  readonly cases?: readonly PrefillCase[];
  readonly numItersWarmup?: number;
  readonly numIters?: number;
  readonly kv: CacheMode;
  readonly pageSize: number;
  readonly prefillChunk: number;
  readonly seed: number | bigint;
  readonly peer?: string;
  readonly out: string;
  readonly json?: boolean;
}

/** What is run where nothing is said. */
interface Plan {
  readonly cases: readonly PrefillCase[];
  readonly warmup: number;
  readonly iterations: number;
}

/** What hf_reference.py runs, or what a CPU does in some seconds. */
const DEFAULTS: Record<"gpu" | "software", Plan> = {
  gpu: { cases: parseCases("1x128,1x512,8x1024"), warmup: 3, iterations: 15 },
  software: { cases: parseCases("1x64,1x256,4x64"), warmup: 1, iterations: 3 },
};

/** `quire bench prefill`: prompts through the model, the rows of hf_reference.py --what prefill. */
export function addBenchPrefill(bench: Command): void {
  const { gpu, software } = DEFAULTS;
  const either = (what: (plan: Plan) => string | number) =>
    `(default: ${what(gpu)}, on the software adapter ${what(software)})`;
  const command = bench
    .command("prefill")
    .summary("prompts through the model: tokens and TFLOP a second")
    .description(
      "Prompt processing: random prompts, keys and values written to the cache, logits of the last token of each.\n" +
        "Each case is checked first, against the same prompts in chunks (without a cache: in other batches), then timed.\n" +
        "A case is sequences x tokens of each.",
    )
    .option("--cases <list>", `such as 1x128,8x1024 ${either((p) => casesText(p.cases))}`, parseCases)
    .option(
      "--num-iters-warmup <n>",
      `iterations that are not measured, on a GPU again until 2 seconds have passed; 0: none ${either((p) => p.warmup)}`,
      integer("--num-iters-warmup", 0, 10_000),
    )
    .option(
      "--num-iters <n>",
      `measured iterations of each case ${either((p) => p.iterations)}`,
      integer("--num-iters", 1, 10_000),
    )
    .option(
      "--page-size <slots>",
      "tokens in a page of the paged cache, 8 to 256",
      integer("--page-size", 8, 256),
      DEFAULT_PAGE_SIZE,
    )
    .addOption(prefillChunkOption())
    .addOption(new Option("--seed <n>", "same seed, same prompts").argParser(seed).default(0))
    .option("--peer <file>", "JSON of hf_reference.py --what prefill: its rows beside ours, with ratios")
    .option("--out <folder>", "where results.json, the chart and report.html go", "results/bench-prefill")
    .option("--json", "print results.json to stdout instead of the table");
  addModelOptions(command);
  addKvOption(command);
  addGpuOptions(command, "fast");
  command.action(run);
}

async function run(flags: BenchPrefillFlags): Promise<void> {
  const peers = flags.peer === undefined ? [] : parsePeer(readText("--peer", flags.peer), flags.peer);
  await prepareResultsDir(flags.out);
  await interruptible((signal) =>
    withGpu(openOptions(flags), (gpu) =>
      withModel(gpu, flags, async (model, folder) => {
        const defaults = DEFAULTS[gpu.info.software ? "software" : "gpu"];
        const plan: Plan = {
          cases: flags.cases ?? defaults.cases,
          warmup: flags.numItersWarmup ?? defaults.warmup,
          iterations: flags.numIters ?? defaults.iterations,
        };
        checkCases(model, plan.cases);
        if (gpu.info.software && flags.cases === undefined)
          process.stderr.write(
            `quire: small, for a CPU: --cases ${casesText(plan.cases)}; a GPU gets ${casesText(DEFAULTS.gpu.cases)}\n`,
          );
        const description = describeModel(model, folder, flags.dtype, flags.kvDtype);
        const bar = progressBar("iterations");
        const { kv, kvDtype, pageSize, prefillChunk, seed } = flags;
        const options = { ...plan, kv, kvDtype, pageSize, prefillChunk, seed, signal, onIteration: bar.show };
        const measured = await measurePrefills(model, options).finally(bar.stop);
        const results: PrefillResults = {
          schema: PREFILL_SCHEMA,
          ...environment(gpu),
          model: description,
          options: describeOptions(flags, plan),
          ...figures(measured, model, peers),
        };
        await report(results, flags);
        const error = measured.aborted ?? measured.failures[0]?.error;
        if (error) throw error;
      }),
    ),
  );
}

/** Print the table, write the files. */
async function report(results: PrefillResults, flags: BenchPrefillFlags): Promise<void> {
  // Without a case there is nothing to tell but the error, which comes anyway.
  if (results.rows.length === 0) return;
  // Print first: a full disk must not cost the figures.
  process.stdout.write(`${flags.json ? JSON.stringify(results, null, 1) : prefillText(results)}\n`);
  const out = resultsFolder(flags.out, results.incomplete !== undefined);
  const files = await writePrefill(out, results);
  process.stderr.write(`quire: wrote ${files.length} files to ${resolve(out)}; open report.html\n`);
}

function figures(
  { measured, failures, aborted }: MeasuredPrefills,
  { config }: Gpt2,
  peers: readonly PeerRow[],
): Pick<PrefillResults, "rows" | "failures" | "first_token_ratio" | "incomplete"> {
  const rows = measured.map((m) => prefillRow(m, config, peers));
  return {
    rows,
    failures: failures.map(({ prefill: [batch, tokens], error }) => ({
      prefill: [batch, tokens],
      message: error.message,
    })),
    first_token_ratio: firstTokenRatio(rows),
    ...(aborted && { incomplete: aborted.message }),
    ...(!aborted && failures.length > 0 && { incomplete: `${failures.length} of the cases failed` }),
  };
}

function casesText(cases: readonly PrefillCase[]): string {
  return cases.map(caseName).join(",");
}

function describeOptions(flags: BenchPrefillFlags, plan: Plan): PrefillResults["options"] {
  return {
    cases: plan.cases.map(([batch, tokens]) => [batch, tokens]),
    num_iters_warmup: plan.warmup,
    num_iters: plan.iterations,
    kv: flags.kv,
    page_size: flags.pageSize,
    prefill_chunk: flags.prefillChunk,
    seed: String(flags.seed),
    kernels: flags.kernels,
    peer: flags.peer ?? null,
  };
}
