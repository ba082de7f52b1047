import { join, resolve } from "node:path";
import process from "node:process";
import { type Command, Option } from "commander";
import { LIGHT } from "../bench/chart-parts.ts";
import { chartSvg } from "../bench/chart-svg.ts";
import { describeModel } from "../bench/describe-model.ts";
import { environment } from "../bench/environment.ts";
import { profileModel } from "../bench/profile.ts";
import { profileCharts } from "../bench/profile-charts.ts";
import { PROFILE_RESULTS, PROFILE_SCHEMA, type ProfileResults } from "../bench/profile-results.ts";
import { checkStepLengths } from "../bench/profile-steps.ts";
import { profileText } from "../bench/profile-table.ts";
import { prepareResultsDir, writeResultsFile } from "../bench/write-results.ts";
import { checkTimer } from "../gpu/timer.ts";
import { DEFAULT_PAGE_SIZE } from "../kv/page-table.ts";
import { interruptible } from "./exit.ts";
import {
  addGpuOptions,
  addModelOptions,
  type GpuFlags,
  integer,
  type ModelFlags,
  oneOf,
  openOptions,
} from "./options.ts";
import { progressBar } from "./progress.ts";
import { withGpu, withModel } from "./with-gpu.ts";

/** Mode none has no decode step: it computes all tokens again. */
const KV_MODES = ["paged", "contiguous"] as const;

interface ProfileFlags extends GpuFlags, ModelFlags {
  readonly kv: (typeof KV_MODES)[number];
  readonly context: number;
  readonly promptLength: number;
  readonly repeat: number;
  readonly pageSize: number;
  readonly out: string;
  readonly json?: boolean;
}

/** `quire profile`: where the time of a step goes, dispatch by dispatch. */
export function profileCommand(program: Command): void {
  const command = program
    .command("profile")
    .summary("where the time of a decode and of a prefill step goes")
    .description(
      "One decode and one prefill step with a timestamp pair around every dispatch: kernel, shape, time, GB/s, GFLOP/s, share of\n" +
        "the peaks measured in the same run; the same step unprofiled; how much is dispatch, memory, arithmetic.\n" +
        "Needs the feature timestamp-query: exit code 3 without it.",
    )
    .addOption(
      new Option("--kv <mode>", `KV cache: ${KV_MODES.join(", ")}`)
        .default("paged")
        .argParser(oneOf("--kv", KV_MODES)),
    )
    .option("--context <tokens>", "tokens that the decode step's token sees", integer("--context", 1), 100)
    .option("--prompt-length <tokens>", "tokens of the prefill step", integer("--prompt-length", 1), 128)
    .option("--repeat <n>", "runs of each measurement; medians count", integer("--repeat", 1, 1000), 20)
    .option(
      "--page-size <slots>",
      "tokens in a page of the paged cache, 8 to 256",
      integer("--page-size", 8, 256),
      DEFAULT_PAGE_SIZE,
    )
    .option("--out <folder>", "where profile.json, timeline.svg and kernels.svg go", "results/profile")
    .option("--json", "print profile.json, with every dispatch, to stdout instead of the table");
  addModelOptions(command);
  addGpuOptions(command, "fast");
  command.action(run);
}

async function run(flags: ProfileFlags): Promise<void> {
  // A bad folder must fail before the measuring, not after it.
  await prepareResultsDir(flags.out);
  await interruptible((signal) =>
    withGpu(openOptions(flags), async (gpu) => {
      // Before the model is loaded, which may take a while.
      checkTimer(gpu);
      await withModel(gpu, flags, async (model, folder) => {
        checkStepLengths(model, flags);
        const description = describeModel(model, folder, flags.dtype, flags.kvDtype);
        const bar = progressBar("parts");
        const profile = await profileModel(model, { ...flags, signal, onProgress: bar.show }).finally(
          bar.stop,
        );
        const results: ProfileResults = PROFILE_RESULTS.parse({
          schema: PROFILE_SCHEMA,
          ...environment(gpu),
          model: description,
          options: {
            kv: flags.kv,
            context: flags.context,
            promptLength: flags.promptLength,
            pageSize: flags.pageSize,
            repeat: flags.repeat,
            kernels: flags.kernels,
          },
          ...profile,
        });
        await report(results, flags);
      });
    }),
  );
}

/** Print first: a full disk must not cost the figures. */
async function report(results: ProfileResults, { json, out }: ProfileFlags): Promise<void> {
  const text = `${JSON.stringify(results, null, 1)}\n`;
  process.stdout.write(json ? text : `${profileText(results)}\n`);
  await writeResultsFile(join(out, "profile.json"), text);
  for (const chart of profileCharts(results, LIGHT))
    await writeResultsFile(join(out, `${chart.id}.svg`), `${chartSvg(chart)}\n`);
  process.stderr.write(`quire: wrote profile.json, timeline.svg and kernels.svg to ${resolve(out)}\n`);
}
