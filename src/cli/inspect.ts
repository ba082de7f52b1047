import process from "node:process";
import type { Command } from "commander";
import { BadInput } from "../check.ts";
import { DEFAULT_PAGE_SIZE } from "../kv/page-table.ts";
import type { WeightDtype } from "../model/expected-tensors.ts";
import { inspectModel } from "./inspect-model.ts";
import type { PlanOptions } from "./inspect-plan.ts";
import { inspectionText } from "./inspect-text.ts";
import { dtypeOption, integer, modelFolder, oneOf, prefillChunkOption, size } from "./options.ts";

interface InspectFlags {
  readonly memory?: number;
  readonly dtype: WeightDtype;
  readonly kvDtype: "f32" | "f16";
  readonly pageSize: number;
  readonly length?: number;
  readonly prefillChunk: number;
  readonly memoryPlan?: boolean;
  readonly tokens?: number;
  readonly sequences?: number;
  readonly tensorCores?: boolean;
  readonly tensors?: boolean;
  readonly json?: boolean;
}

/** Add `quire inspect` to `program`. Its action throws what keeps the model from being loaded, after the report. */
export function inspectCommand(program: Command): void {
  program
    .command("inspect")
    .summary("explain a model: config, tensors, bytes, and the sequences that fit a budget")
    .description(
      "Read a model's config, tokenizer and the headers of its weights, and work out what it takes on a GPU.\n" +
        "No GPU is needed. Exit code 2 when the model could not be loaded, with the reason.",
    )
    .argument("<model>", "a model's folder, its name under weights/, or a weight file beside its config.json")
    .option("--memory <size>", "how many sequences fit this much GPU memory, such as 2GiB", size("--memory"))
    .option(
      "--length <tokens>",
      "tokens of each sequence (default: the model's context)",
      integer("--length", 1),
    )
    .addOption(dtypeOption())
    .option(
      "--kv-dtype <type>",
      "keys and values: f32, or f16 packed",
      oneOf("--kv-dtype", ["f32", "f16"]),
      "f32",
    )
    .option(
      "--page-size <slots>",
      "tokens in a page of the paged cache, 8 to 256",
      integer("--page-size", 8, 256),
      DEFAULT_PAGE_SIZE,
    )
    .addOption(prefillChunkOption())
    .option(
      "--memory-plan",
      "instead of the rest: what a step has in memory, launch by launch, in which buffer",
    )
    .option(
      "--tokens <n>",
      "with --memory-plan: new tokens of the step (default: a full piece, see --prefill-chunk, or the context)",
      integer("--tokens", 1),
    )
    .option(
      "--sequences <n>",
      "with --memory-plan: sequences that the tokens belong to (default: 1)",
      integer("--sequences", 1, 65_535),
    )
    .option("--tensor-cores", "with --memory-plan: as the engine computes with --dtype f16 on tensor cores")
    .option("--tensors", "list every tensor instead of a line for each kind")
    .option("--json", "print the findings as JSON, every tensor included")
    .action(inspect);
}

async function inspect(model: string, flags: InspectFlags): Promise<void> {
  const plan = planOptions(flags);
  const path = modelFolder(model);
  const inspection = await inspectModel(path, { ...flags, plan });
  const text = flags.json
    ? `${JSON.stringify(inspection, null, 2)}\n`
    : inspectionText(inspection, { everyTensor: flags.tensors === true });
  process.stdout.write(text);
  const [problem] = inspection.problems;
  if (problem) throw new BadInput(problem.message);
}

/** What --memory-plan asks for; undefined without it. Throws BadInput where only it would need a flag. */
function planOptions(flags: InspectFlags): PlanOptions | undefined {
  const { memoryPlan, tokens, sequences, tensorCores, prefillChunk } = flags;
  if (memoryPlan)
    return { tokens, sequences: sequences ?? 1, tensorCores: tensorCores ?? false, prefillChunk };
  const alone = Object.entries({
    "--tokens": tokens,
    "--sequences": sequences,
    "--tensor-cores": tensorCores,
  });
  const [flag] = alone.find(([, value]) => value !== undefined) ?? [];
  if (flag) throw new BadInput(`${flag} is of a memory plan; wanted --memory-plan with it`);
  return undefined;
}
