// What the figures of a throughput experiment say, in sentences. Pure.
import type { MeasuredThroughput, TimedStep } from "./throughput.ts";
import { throughputFigures } from "./throughput-figures.ts";
import { type RunDescription, THROUGHPUT_SCHEMA, type ThroughputResults } from "./throughput-results.ts";
import { formatCount, formatPercent, formatSeconds } from "./units.ts";

type Concluded = Pick<
  ThroughputResults,
  | "completed"
  | "duration"
  | "output_throughput"
  | "total_token_throughput"
  | "median_ttft_ms"
  | "median_tpot_ms"
  | "preemptions"
  | "recomputed_tokens"
  | "steps"
  | "max_concurrency"
> & { readonly options: Pick<ThroughputResults["options"], "max_sequences" | "max_batched_tokens"> };

/** What the command knows of a run beside its records. */
export interface ThroughputContext {
  readonly run: RunDescription;
  readonly memory: ThroughputResults["memory"];
  readonly environment: Pick<ThroughputResults, "quire" | "createdAt" | "command" | "runtime" | "adapter">;
  readonly model: ThroughputResults["model"];
  readonly options: ThroughputResults["options"];
}

/** Everything of results.json, in the order of its schema. */
export function completeThroughput(
  measured: MeasuredThroughput,
  context: ThroughputContext,
): ThroughputResults {
  const { run, memory, environment, model, options } = context;
  const results = {
    schema: THROUGHPUT_SCHEMA,
    ...run,
    ...throughputFigures(measured, options.percentiles, options.prefix_len),
    memory,
    ...environment,
    model,
    options,
    ...(measured.refused[0] && { failure: measured.refused[0].reason }),
  } as const;
  return {
    ...results,
    conclusion: concludeThroughput(results, measured.steps),
    ...(measured.error && { incomplete: measured.error.message }),
  };
}

/** How fast it was, and what kept it from being faster. */
export function concludeThroughput(results: Concluded, steps: readonly TimedStep[]): string[] {
  const { completed, duration, median_ttft_ms: ttft, median_tpot_ms: tpot } = results;
  if (completed === 0) return ["No request was finished, so there are no figures."];
  const waits = [
    ...(ttft === null ? [] : [`${formatSeconds(ttft / 1e3)} for the first token`]),
    ...(tpot === null ? [] : [`${formatSeconds(tpot / 1e3)} for each further one`]),
  ];
  return [
    `${counted(completed, "request")} in ${formatSeconds(duration)}: ` +
      `${rate(results.output_throughput)} output tokens a second, ${rate(results.total_token_throughput)} with the prompts.`,
    `A request waited ${waits.join(" and ")} (medians).`,
    limit(results, steps),
    ...hostShare(results),
  ];
}

/** What requests waited for. */
function limit(results: Concluded, steps: readonly TimedStep[]): string {
  const { preemptions, recomputed_tokens: recomputed, options, max_concurrency: bound } = results;
  if (preemptions > 0)
    return (
      `Keys and values ran out of room: ${counted(preemptions, "preemption")}, ${formatCount(recomputed)} tokens computed again. ` +
      "More --kv-memory or fewer --max-sequences avoid them."
    );
  if (!mostly(steps, (s) => s.waiting > 0))
    return bound === null
      ? "Most of the time no request waited: the engine had room for more."
      : `Most of the time no request waited in the engine, which --max-concurrency ${bound} kept from having more.`;
  const waiting = steps.filter((s) => s.waiting > 0);
  const { max_sequences: sequences, max_batched_tokens: tokens } = options;
  if (mostly(waiting, (s) => s.running >= sequences))
    return `Requests waited since ${sequences} sequences were running: --max-sequences lets more of them in.`;
  if (mostly(waiting, (s) => s.tokens >= tokens))
    return `Requests waited since steps were full of prompts: --max-batched-tokens ${tokens} bounds them.`;
  return "Requests waited for room for keys and values: more --kv-memory lets more of them run at once.";
}

function hostShare({ steps }: Concluded): string[] {
  const decode = steps.full_decode;
  if (decode?.host_share_percent == null) return [];
  return [
    `The host was busy for ${formatPercent(decode.host_share_percent)} of a decode step of ` +
      `${counted(decode.sequences, "sequence")}.`,
  ];
}

/** Does it hold for more than half of the steps' time? */
function mostly(steps: readonly TimedStep[], holds: (step: TimedStep) => boolean): boolean {
  const seconds = (some: readonly TimedStep[]) => some.reduce((total, s) => total + s.seconds, 0);
  return seconds(steps.filter(holds)) > seconds(steps) / 2;
}

function counted(count: number, noun: string): string {
  return `${formatCount(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/** Three digits or more, with commas. */
export function rate(perSecond: number): string {
  return perSecond < 100 ? perSecond.toFixed(perSecond < 10 ? 2 : 1) : formatCount(Math.round(perSecond));
}
