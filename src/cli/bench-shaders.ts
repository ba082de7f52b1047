import { resolve } from "node:path";
import process from "node:process";
import type { Command } from "commander";
import { SHAPE_NAMES, type ShapeName } from "../bench/shader-case.ts";
import { shadersText } from "../bench/shader-table.ts";
import { benchShaders, defaultShape } from "../bench/shaders.ts";
import { prepareResultsFile, writeResultsFile } from "../bench/write-results.ts";
import { BadInput } from "../check.ts";
import { EXIT_FAILURE, interruptible } from "./exit.ts";
import { addGpuOptions, type GpuFlags, integer, oneOf, openOptions } from "./options.ts";
import { progressBar } from "./progress.ts";
import { tuneShaders } from "./tune-shaders.ts";
import { withGpu } from "./with-gpu.ts";

interface BenchShadersFlags extends GpuFlags {
  readonly filter?: string;
  readonly repeat: number;
  readonly shape?: ShapeName;
  readonly tune?: boolean;
  readonly json?: boolean;
  readonly out?: string;
}

/** `quire bench shaders`: every kernel, checked and then timed. */
export function addBenchShaders(bench: Command): void {
  const command = bench
    .command("shaders")
    .summary("every kernel at a model's sizes: checked, then timed")
    .description(
      "Every kernel and variant at GPT-2 124M's sizes: checked against float64 first, then timed on the GPU.\n" +
        "GB/s, GFLOP/s and the share of the peak measured in the same run. Exit code 1 when a kernel fails its check.",
    )
    .option("--filter <words>", 'only cases that hold all these words, such as "matvec f16"')
    .option("--repeat <n>", "timed passes of each case; the median counts", integer("--repeat", 1, 1000), 5)
    .option(
      "--shape <name>",
      "124m, or tiny (novels-en's sizes) (default: tiny on the software adapter, else 124m)",
      oneOf("--shape", SHAPE_NAMES),
    )
    .option(
      "--tune",
      "instead, measure every tile size of the products and keep the best for this adapter; all give the same results",
    )
    .option("--out <file>", "write the results as JSON to this file too")
    .option("--json", "print the results as JSON instead of the table");
  addGpuOptions(command, "fast");
  command.action(run);
}

async function run(flags: BenchShadersFlags): Promise<void> {
  if (flags.tune && flags.filter !== undefined)
    throw new BadInput("--filter chooses cases, and --tune has none: leave one of them out");
  // A bad path must fail before the measuring, not after it.
  if (flags.out !== undefined) await prepareResultsFile(flags.out);
  await interruptible((signal) =>
    withGpu(openOptions(flags), async (gpu) => {
      const { filter, repeat, out } = flags;
      const shape = flags.shape ?? defaultShape(gpu);
      if (flags.tune) return tuneShaders(gpu, shape, flags, signal);
      if (gpu.info.software)
        process.stderr.write(
          flags.shape === undefined
            ? "quire: --shape tiny, since a CPU is slow; --shape 124m has GPT-2's sizes\n"
            : `quire: --shape ${shape} on the software adapter${shape === "124m" ? ": this takes minutes" : ""}\n`,
        );
      const bar = progressBar("cases");
      const results = await benchShaders(gpu, {
        shape,
        filter,
        repeat,
        signal,
        onProgress: bar.show,
      }).finally(bar.stop);
      const json = `${JSON.stringify(results, null, 1)}\n`;
      process.stdout.write(flags.json ? json : `${shadersText(results)}\n`);
      if (!results.ok) process.exitCode = EXIT_FAILURE;
      if (out !== undefined) {
        await writeResultsFile(out, json);
        process.stderr.write(`quire: wrote ${resolve(out)}\n`);
      }
    }),
  );
}
