import process from "node:process";
import { type Command, Option } from "commander";
import { formatBytes, formatSeconds } from "../bench/units.ts";
import { BadInput } from "../check.ts";
import { generate } from "../generate/generate.ts";
import { Sequence } from "../generate/sequence.ts";
import { type CacheOptions, checkFits, makeCache } from "../kv/make-cache.ts";
import { loadTokenizer, streamAfter } from "../tokenizer.ts";
import { addEngineOptions, inFlagNames } from "./engine-options.ts";
import { Interrupted, interruptible } from "./exit.ts";
import {
  checkManyFlags,
  generateMany,
  type ManyFlags,
  type ManyInput,
  readPrompts,
  wantsEngine,
} from "./generate-many.ts";
import {
  addCacheOptions,
  addGpuOptions,
  addKvOption,
  addModelOptions,
  addSamplingOptions,
  type GpuFlags,
  integer,
  modelFolder,
  openOptions,
  prefillChunkOption,
  samplingOptions,
} from "./options.ts";
import { readText } from "./read-text.ts";
import { checkVocabulary, withGpu, withModel } from "./with-gpu.ts";

interface GenerateFlags extends GpuFlags, ManyFlags {
  readonly promptFile?: string;
  readonly prefillChunk: number;
}

/** `quire generate [prompt…]`: the text streams to stdout, a line of figures goes to stderr. */
export function generateCommand(program: Command): void {
  const command = program
    .command("generate")
    .summary("continue a text")
    .description(
      "Continue a text. The text goes to stdout as it comes, a line of figures to stderr.\n" +
        "Several prompts, samples or beams run together; their texts come when they are finished, each under a heading.",
    )
    .argument("[prompt...]", "the text to continue; - reads it from stdin")
    .option("--prompt-file <path>", "read the prompt from a file")
    .option("--prompts-file <path>", 'several prompts: one a line, or in a .jsonl file {"prompt": …} a line')
    .option("-n, --max-new-tokens <n>", "most tokens to generate", integer("--max-new-tokens", 1), 100)
    .option(
      "--n <samples>",
      "samples of each prompt; they share its pages (default: 1)",
      integer("--n", 1, 4096),
    )
    .option(
      "--beams <k>",
      "beam search: the k best beams instead of a sample; needs --temperature 0",
      integer("--beams", 1, 64),
    )
    .addOption(
      new Option("--stop <text>", "end before this text; may be given several times")
        .default([], "none")
        .argParser((text: string, all: string[]) => [...all, text]),
    )
    .option("--json", "print one JSON object instead of the text");
  addModelOptions(command);
  addKvOption(command);
  addCacheOptions(command).addOption(prefillChunkOption());
  addEngineOptions(command);
  addSamplingOptions(command);
  addGpuOptions(command);
  command.action(run);
}

async function run(words: readonly string[], given: GenerateFlags, command: Command): Promise<void> {
  // A beam is searched, not sampled: the default temperature is not meant for it.
  const searches = given.beams !== undefined && command.getOptionValueSource("temperature") === "default";
  const flags = searches ? { ...given, temperature: 0 } : given;
  const prompts = promptsOf(words, flags);
  if (flags.stop.includes("")) throw new BadInput('--stop is ""; wanted a text of at least one character');
  if (wantsEngine(flags)) {
    checkManyFlags(flags);
    if (command.getOptionValueSource("prefillChunk") !== "default")
      throw new BadInput(
        "--prefill-chunk is for one sequence; several prompts, samples or beams, and the engine's flags, have --max-batched-tokens",
      );
  }
  const tokenizer = await loadTokenizer(modelFolder(flags.model));
  await interruptible((signal) =>
    withGpu(openOptions(flags), (gpu) =>
      withModel(gpu, flags, async (model, folder) => {
        checkVocabulary(tokenizer, model.config, folder);
        const input = { model, folder, tokenizer, prompts, signal };
        if (wantsEngine(flags)) await inFlagNames(() => generateMany(input, flags));
        else await generateOne(input, flags);
      }),
    ),
  );
}

/** One sequence, as fast as it goes: its text streams to stdout. */
async function generateOne(input: ManyInput, flags: GenerateFlags): Promise<void> {
  const { model, folder, tokenizer, prompts, signal } = input;
  const { gpu, config } = model;
  const text = prompts[0]!;
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
    for await (const step of generate(model, cache, [sequence], { prefillChunk: flags.prefillChunk })) {
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
}

function promptsOf(words: readonly string[], flags: GenerateFlags): string[] {
  if (flags.promptsFile === undefined) return [readPrompt(words, flags.promptFile)];
  if (flags.promptFile !== undefined || words.length > 0)
    throw new BadInput("--prompts-file and another prompt are both given; wanted one of them");
  return readPrompts(flags.promptsFile);
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
