import process from "node:process";
import type { Command } from "commander";
import { BadInput } from "../check.ts";
import { perplexity } from "../generate/perplexity.ts";
import type { CacheMode } from "../kv/cache.ts";
import { makeCache } from "../kv/make-cache.ts";
import { loadTokenizer } from "../tokenizer.ts";
import { Interrupted, interruptible } from "./exit.ts";
import {
  addCacheOptions,
  addGpuOptions,
  addKvOption,
  addModelOptions,
  type CacheFlags,
  type GpuFlags,
  integer,
  type ModelFlags,
  modelFolder,
  openOptions,
  prefillChunkOption,
} from "./options.ts";
import { progressBar } from "./progress.ts";
import { readText } from "./read-text.ts";
import { withGpu, withModel } from "./with-gpu.ts";

interface PerplexityFlags extends GpuFlags, ModelFlags, CacheFlags {
  readonly file: string;
  readonly ids?: boolean;
  readonly window?: number;
  readonly stride?: number;
  readonly maxWindows?: number;
  readonly kv: CacheMode;
  readonly prefillChunk: number;
  readonly specialTokens: boolean;
  readonly json?: boolean;
}

/** `quire perplexity --model <model> --file <text>`: how well the model predicts a text. */
export function perplexityCommand(program: Command): void {
  const command = program
    .command("perplexity")
    .summary("how well a model predicts a text")
    .description(
      "Perplexity of a text, in windows of the model's context length that slide by --stride tokens.",
    )
    .requiredOption("--file <path>", "the text, UTF-8; - reads stdin")
    .option("--ids", "the file is a JSON list of token ids instead of a text")
    .option("--window <tokens>", "tokens of a window (default: the model's context)", integer("--window", 1))
    .option("--stride <tokens>", "tokens between two windows (default: the window)", integer("--stride", 1))
    .option("--max-windows <n>", "stop after this many windows", integer("--max-windows", 1))
    .option("--no-special-tokens", "do not let the tokenizer add its special tokens")
    .option("--json", "print the result as JSON");
  addModelOptions(command);
  addKvOption(command);
  addCacheOptions(command).addOption(prefillChunkOption());
  addGpuOptions(command);
  command.action(run);
}

async function run(flags: PerplexityFlags): Promise<void> {
  const ids = await readIds(flags);
  await interruptible((signal) =>
    withGpu(openOptions(flags), (gpu) =>
      withModel(gpu, flags, async (model, folder) => {
        const { contextLength } = model.config;
        const length = Math.min(flags.window ?? contextLength, ids.length - 1);
        const cache = makeCache(gpu, model.cacheShape(flags.kvDtype), {
          mode: flags.kv,
          sequences: 1,
          contextLength,
          expectedLength: Math.max(1, length),
          maxSeqLen: flags.maxSeqLen,
          pageSize: flags.pageSize,
          pages: flags.kvPages,
        });
        const bar = progressBar("windows");
        try {
          const result = await perplexity(model, cache, ids, {
            windowLength: flags.window,
            stride: flags.stride,
            maxWindows: flags.maxWindows,
            prefillChunk: flags.prefillChunk,
            signal,
            onWindow: (_, done, total) => bar.show(done, total),
          });
          bar.stop();
          if (signal.aborted && result.count === 0) throw signal.reason;
          const window = flags.window ?? contextLength;
          const adapter = { description: gpu.info.description, software: gpu.info.software };
          const output = {
            model: folder,
            file: flags.file,
            tokens: ids.length,
            window,
            stride: flags.stride ?? window,
            adapter,
            ...result,
          };
          process.stdout.write(
            flags.json
              ? `${JSON.stringify(output, null, 2)}\n`
              : `perplexity ${result.perplexity.toFixed(4)} (${result.meanNll.toFixed(5)} nats a token) over ${result.count} predicted tokens ` +
                  `in ${result.windows.length} windows of up to ${window}\n`,
          );
          if (signal.reason instanceof Interrupted)
            throw new Interrupted("interrupted; the figures are of the windows before");
          signal.throwIfAborted();
        } finally {
          bar.stop();
          cache.free();
        }
      }),
    ),
  );
}

async function readIds(flags: PerplexityFlags): Promise<number[]> {
  const text = readText("--file", flags.file);
  if (!flags.ids)
    return (await loadTokenizer(modelFolder(flags.model))).encode(text, {
      addSpecialTokens: flags.specialTokens,
    });
  let ids: unknown;
  try {
    ids = JSON.parse(text);
  } catch (error) {
    throw new BadInput(`--file ${flags.file} is not JSON: ${(error as Error).message}`);
  }
  const isId = (id: unknown) => Number.isInteger(id) && (id as number) >= 0;
  if (!Array.isArray(ids) || !ids.every(isId))
    throw new BadInput(`--file ${flags.file}: with --ids it must be a JSON list of token ids`);
  return ids as number[];
}
