import process from "node:process";
import { type Command, Option } from "commander";
import { formatBytes, formatSeconds } from "../bench/units.ts";
import { BadInput } from "../check.ts";
import { generate } from "../generate/generate.ts";
import { Sequence } from "../generate/sequence.ts";
import type { CacheMode } from "../kv/cache.ts";
import { type CacheOptions, checkFits, makeCache } from "../kv/make-cache.ts";
import { loadTokenizer, streamAfter } from "../tokenizer.ts";
import { Interrupted, interruptible } from "./exit.ts";
import {
  addCacheOptions,
  addGpuOptions,
  addKvOption,
  addModelOptions,
  addSamplingOptions,
  type CacheFlags,
  type GpuFlags,
  integer,
  type ModelFlags,
  modelFolder,
  openOptions,
  type SamplingFlags,
  samplingOptions,
} from "./options.ts";
import { readText } from "./read-text.ts";
import { checkVocabulary, withGpu, withModel } from "./with-gpu.ts";

interface GenerateFlags extends GpuFlags, ModelFlags, CacheFlags, SamplingFlags {
  readonly kv: CacheMode;
  readonly maxNewTokens: number;
  readonly promptFile?: string;
  readonly stop: readonly string[];
  readonly json?: boolean;
}

/** `quire generate [prompt…]`: the text streams to stdout, a line of figures goes to stderr. */
export function generateCommand(program: Command): void {
  const command = program
    .command("generate")
    .summary("continue a text")
    .description("Continue a text. The text goes to stdout as it comes, a line of figures to stderr.")
    .argument("[prompt...]", "the text to continue; - reads it from stdin")
    .option("--prompt-file <path>", "read the prompt from a file")
    .option("-n, --max-new-tokens <n>", "most tokens to generate", integer("--max-new-tokens", 1), 100)
    .addOption(
      new Option("--stop <text>", "end before this text; may be given several times")
        .default([], "none")
        .argParser((text: string, all: string[]) => [...all, text]),
    )
    .option("--json", "print one JSON object instead of the text");
  addModelOptions(command);
  addKvOption(command);
  addCacheOptions(command);
  addSamplingOptions(command);
  addGpuOptions(command);
  command.action(run);
}

async function run(words: readonly string[], flags: GenerateFlags): Promise<void> {
  const text = readPrompt(words, flags.promptFile);
  if (flags.stop.includes("")) throw new BadInput('--stop is ""; wanted a text of at least one character');
  const tokenizer = await loadTokenizer(modelFolder(flags.model));
  await interruptible((signal) =>
    withGpu(openOptions(flags), (gpu) =>
      withModel(gpu, flags, async (model, folder) => {
        const { config } = model;
        checkVocabulary(tokenizer, config, folder);
        const prompt = tokenizer.encode(text, { addSpecialTokens: flags.specialTokens });
        if (prompt.length === 0) throw new BadInput("the prompt is empty; give at least one word");
        const sequence = new Sequence({
          prompt,
          maxNewTokens: flags.maxNewTokens,
          contextLength: config.contextLength,
          sampling: samplingOptions(flags),
          eosIds: config.eosTokenIds,
          ignoreEos: flags.ignoreEos,
          stops: flags.stop,
          textStream: streamAfter(tokenizer, prompt, { skipSpecialTokens: true }),
        });
        const cacheOptions: CacheOptions = {
          mode: flags.kv,
          sequences: 1,
          contextLength: config.contextLength,
          expectedLength: prompt.length + flags.maxNewTokens,
          maxSeqLen: flags.maxSeqLen,
          pageSize: flags.pageSize,
          pages: flags.kvPages,
        };
        checkFits(cacheOptions);
        const cache = makeCache(gpu, model.cacheShape(flags.kvDtype), cacheOptions);
        const stepSeconds: number[] = [];
        let peakBytes = 0;
        let kv = cache.usage();
        try {
          for await (const step of generate(model, cache, [sequence])) {
            stepSeconds.push(step.seconds);
            peakBytes = Math.max(peakBytes, step.memory.peak);
            kv = step.kv;
            if (!flags.json) process.stdout.write(step.tokens[0]!.text);
            if (signal.aborted) break;
          }
        } finally {
          cache.free();
        }
        const total = stepSeconds.reduce((a, b) => a + b, 0);
        const generated = sequence.tokens.slice(sequence.promptLength);
        const figures = {
          promptTokens: prompt.length,
          newTokens: generated.length,
          totalSeconds: total,
          timeToFirstTokenSeconds: stepSeconds[0] ?? 0,
          tokensPerSecond: generated.length / total,
          peakBytes,
          kv: { mode: flags.kv, ...kv },
        };
        if (flags.json) {
          const { finishReason } = sequence;
          const adapter = { description: gpu.info.description, software: gpu.info.software };
          const result = {
            model: folder,
            prompt: text,
            text: sequence.text,
            promptIds: prompt,
            ids: generated,
            finishReason,
            seed: String(flags.seed),
            adapter,
            ...figures,
          };
          process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
        } else process.stdout.write("\n");
        process.stderr.write(
          `${figures.newTokens} tokens in ${formatSeconds(total)} (${figures.tokensPerSecond.toFixed(1)} tokens/s, first after ` +
            `${formatSeconds(figures.timeToFirstTokenSeconds)}), prompt of ${prompt.length}, GPU memory at most ${formatBytes(peakBytes)}, ` +
            `KV ${flags.kv}: ${formatBytes(kv.reserved)} reserved, ${formatBytes(kv.used)} used; ended by ${sequence.finishReason ?? (signal.reason instanceof Interrupted ? "Ctrl-C" : "a closed stdout")}\n`,
        );
        signal.throwIfAborted();
      }),
    ),
  );
}

function readPrompt(words: readonly string[], file: string | undefined): string {
  if (file !== undefined && words.length > 0)
    throw new BadInput("a prompt and --prompt-file are both given; wanted one of them");
  const fromStdin = words.length === 1 && words[0] === "-";
  if (file === undefined && !fromStdin) {
    if (words.length === 0)
      throw new BadInput(
        'no prompt; give a text, --prompt-file <path>, or - for stdin: quire generate "It was a dark night"',
      );
    return words.join(" ");
  }
  return readText("the prompt", fromStdin ? "-" : file!);
}
