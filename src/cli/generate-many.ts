import process from "node:process";
import { formatBytes, formatPercent, formatSeconds } from "../bench/units.ts";
import { parseDataset } from "../bench/workload-dataset.ts";
import { BadInput } from "../check.ts";
import { Engine } from "../generate/engine.ts";
import { DEFAULT_CONTEXTS } from "../generate/engine-memory.ts";
import { MAX_SEQUENCES, WATERMARK } from "../generate/engine-settings.ts";
import type { Completion, EngineMetrics, EngineOptions, PromptOutput } from "../generate/engine-types.ts";
import type { CacheMode } from "../kv/cache.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import type { Tokenizer } from "../tokenizer.ts";
import { type EngineFlags, engineOptions } from "./engine-options.ts";
import {
  type CacheFlags,
  type GpuFlags,
  type ModelFlags,
  type SamplingFlags,
  samplingOptions,
} from "./options.ts";
import { readText } from "./read-text.ts";

// `quire generate` with several prompts, samples or beams, or with flags of the engine.

export interface ManyFlags extends GpuFlags, ModelFlags, CacheFlags, SamplingFlags, EngineFlags {
  readonly kv: CacheMode;
  readonly maxNewTokens: number;
  readonly n?: number;
  readonly beams?: number;
  readonly promptsFile?: string;
  readonly stop: readonly string[];
  readonly json?: boolean;
}

/** Does the command line ask for what only the engine does? Everything else is the fast way of one sequence. */
export function wantsEngine(flags: ManyFlags): boolean {
  const { n, beams, promptsFile, kvMemory, kvLayout, maxSequences, maxBatchedTokens } = flags;
  const { chunkedPrefill, prefixCache, preemption, watermark } = flags;
  const given = [n, beams, promptsFile, kvMemory, kvLayout, maxSequences, maxBatchedTokens];
  return (
    [...given, preemption, watermark, flags.async].some((flag) => flag !== undefined) ||
    !chunkedPrefill ||
    !prefixCache
  );
}

/** Throws BadInput on flags that do not go together, before anything is loaded. */
export function checkManyFlags({ kv, n, beams, temperature, kvPages, kvMemory }: ManyFlags): void {
  if (kv !== "paged")
    throw new BadInput(
      `--kv is ${kv}; several prompts, samples or beams, and the engine's flags, need --kv paged: leave it out, or see --kv-layout`,
    );
  if (beams !== undefined && n !== undefined)
    throw new BadInput("--n and --beams are both given; wanted one of them");
  if (beams !== undefined && temperature !== 0)
    throw new BadInput(`--beams needs --temperature 0, got ${temperature}: a beam is searched, not sampled`);
  if (kvPages !== undefined && kvMemory !== undefined)
    throw new BadInput("--kv-pages and --kv-memory are both given; wanted one of them");
}

/** The prompts of a file: JSON Lines, {"prompt": "…"} a line, if it is called .jsonl, else a prompt a line. */
export function readPrompts(path: string): string[] {
  const text = readText("--prompts-file", path);
  const prompts = path.endsWith(".jsonl")
    ? parseDataset(text, path).map(({ prompt, number }) => {
        if (typeof prompt === "string") return prompt;
        throw new BadInput(`${path}: line ${number} has prompt_ids; wanted a prompt as text`);
      })
    : text.split(/\r?\n/).filter((line) => line.trim() !== "");
  if (prompts.length === 0) throw new BadInput(`${path}: has no prompts; wanted one a line`);
  return prompts;
}

/** What the run is given, and what it is called in the results. */
export interface ManyInput {
  readonly model: Gpt2;
  /** The model's folder. */
  readonly folder: string;
  readonly tokenizer: Tokenizer;
  readonly prompts: readonly string[];
  readonly signal: AbortSignal;
}

/** Continue all prompts with one engine: completions to stdout in the order of the prompts, a line of figures to stderr. */
export async function generateMany(input: ManyInput, flags: ManyFlags): Promise<void> {
  const { model, folder, tokenizer, prompts, signal } = input;
  const { memory, info } = model.gpu;
  const ids = prompts.map((text) => tokenizer.encode(text, { addSpecialTokens: flags.specialTokens }));
  const empty = ids.findIndex((prompt) => prompt.length === 0);
  if (empty >= 0) throw new BadInput(`prompt ${empty + 1} is empty; give at least one word`);
  const engine = await Engine.open(model, {
    ...engineOptions(flags),
    ...neededAtMost(model, ids, flags),
    tokenizer,
    log: (line) => process.stderr.write(`quire: ${line}\n`),
  });
  try {
    memory.resetPeak();
    const options = {
      ...samplingOptions(flags),
      maxNewTokens: flags.maxNewTokens,
      n: flags.n,
      beams: flags.beams,
      ignoreEos: flags.ignoreEos,
      stops: flags.stop,
    };
    const outputs: PromptOutput[] = [];
    let shown = 0;
    const begun = engine.now;
    for await (const output of engine.generate(ids, options, signal)) {
      outputs[output.promptIndex] = output;
      for (; outputs[shown]; shown++)
        if (!flags.json) process.stdout.write(completionsText(outputs[shown]!, prompts.length, flags));
    }
    const totalSeconds = engine.now - begun;
    const newTokens = outputs.flatMap((o) => o.completions).reduce((n, c) => n + c.tokens.length, 0);
    const metrics = engine.metrics();
    if (flags.json) {
      const result = {
        model: folder,
        prompts: outputs.map((o, i) => ({
          prompt: prompts[i]!,
          ids: ids[i]!,
          cachedTokens: o.cachedTokens,
          preemptions: o.preemptions,
          timeToFirstTokenSeconds: (o.times.firstToken ?? o.times.finished!) - o.times.submitted,
          totalSeconds: o.times.finished! - o.times.submitted,
        })),
        completions: outputs.flatMap((o, i) => o.completions.map((c) => completionJson(c, i))),
        seed: String(flags.seed),
        adapter: { description: info.description, software: info.software },
        newTokens,
        totalSeconds,
        tokensPerSecond: newTokens / totalSeconds,
        peakBytes: memory.peak,
        kv: engine.memory,
        metrics,
      };
      process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
    }
    process.stderr.write(
      `${newTokens} tokens of ${prompts.length} ${prompts.length === 1 ? "prompt" : "prompts"} in ${formatSeconds(totalSeconds)} ` +
        `(${(newTokens / totalSeconds).toFixed(1)} tokens/s), GPU memory at most ${formatBytes(memory.peak)}, ${metricsText(metrics)}\n`,
    );
    signal.throwIfAborted();
  } finally {
    await engine.close();
  }
}

/**
 * Sequences in a step, and pages unless the flags say what there is: what this run can need, where that is less than the engine's
 * defaults. A share of the pages stays free at admission, so there must be as many more; and a beam that is copied has a page twice.
 */
function neededAtMost(
  { config }: Gpt2,
  prompts: readonly (readonly number[])[],
  flags: ManyFlags,
): Pick<EngineOptions, "maxSequences" | "kvPages"> {
  const { maxNewTokens, maxSequences, kvPages, kvMemory, kvLayout, memory, pageSize, watermark } = flags;
  const branches = flags.beams ?? flags.n ?? 1;
  const pagesOf = (length: number) =>
    branches * Math.ceil(Math.min(config.contextLength, length + maxNewTokens) / pageSize);
  const pages = prompts.reduce((sum, { length }) => sum + pagesOf(length), 0);
  const kept = watermark ?? WATERMARK;
  const isFree = kvPages === undefined && kvMemory === undefined && memory === undefined;
  const most = DEFAULT_CONTEXTS * Math.ceil(config.contextLength / pageSize);
  const wanted = Math.ceil((pages + branches) / (1 - kept)) + 1;
  return {
    maxSequences: maxSequences ?? Math.min(MAX_SEQUENCES, branches * prompts.length),
    kvPages: isFree && (kvLayout ?? "pages") === "pages" && wanted < most ? wanted : kvPages,
  };
}

function completionsText({ promptIndex, completions }: PromptOutput, prompts: number, flags: ManyFlags) {
  const kind = flags.beams === undefined ? "sample" : "beam";
  return completions
    .map(({ index, text, score }) => {
      const parts = [
        ...(prompts > 1 ? [`prompt ${promptIndex + 1} of ${prompts}`] : []),
        ...(completions.length > 1 ? [`${kind} ${index + 1} of ${completions.length}`] : []),
        ...(score === undefined ? [] : [`score ${score.toFixed(4)}`]),
      ];
      return `${parts.length === 0 ? "" : `== ${parts.join(", ")} ==\n`}${text}\n`;
    })
    .join("");
}

/** `prompt` is the index into the result's prompts. */
function completionJson({ index, tokens, text, finishReason, score }: Completion, prompt: number) {
  return { prompt, index, ids: tokens, text, finishReason, score: score ?? null };
}

function metricsText({ prefixQueries, prefixHits, preemptions }: EngineMetrics): string {
  const hits = prefixQueries === 0 ? 0 : (100 * prefixHits) / prefixQueries;
  return `${formatPercent(hits)} of prompt tokens cached, ${preemptions} ${preemptions === 1 ? "preemption" : "preemptions"}`;
}
