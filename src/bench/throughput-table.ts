import { PURPOSES } from "../gpu/memory.ts";
import { plainTable } from "./table.ts";
import { rate } from "./throughput-conclude.ts";
import { METRICS, type Metric, percentileName, type ThroughputResults } from "./throughput-results.ts";
import { formatBytes, formatCount, formatFactor, formatPercent, formatSeconds, timeUnit } from "./units.ts";

/** What stands for a figure that does not exist. */
const NOTHING = "–";

/** The metrics in words, in the order of the table. */
export const METRIC_NAMES: Record<Metric, string> = {
  ttft: "time to first token",
  tpot: "time per output token",
  itl: "inter-token time",
  e2el: "end to end",
};

/** The whole answer as plain text: what was run, its figures, the latencies as a table, what it comes to. */
export function throughputText(results: ThroughputResults): string {
  const { model, adapter, runtime, options } = results;
  const [head = [], ...latencies] = latencyRows(results);
  return [
    `${adapter.description}, ${runtime.name} ${runtime.version}, profile ${adapter.profile}`,
    `${model.name}: weights ${model.dtype}, KV ${options.kv_layout} ${model.kvDtype}; ` +
      `${options.temperature === 0 ? "greedy" : `temperature ${options.temperature}`}`,
    workloadText(results),
    "",
    ...figureLines(figureRows(results)),
    "",
    ...plainTable(head, latencies),
    "",
    ...results.conclusion.map((sentence) => `- ${sentence}`),
    ...(results.failure === undefined
      ? []
      : [`${formatCount(results.failed)} failed, since they can never run; the first: ${results.failure}`]),
    ...(adapter.software ? ["Software adapter: figures of a CPU, no benchmark of any GPU."] : []),
    ...(results.incomplete === undefined
      ? []
      : [`Incomplete: ${results.incomplete}; the figures are of the requests that were finished.`]),
  ].join("\n");
}

/** What the requests are and when they come, in a line. */
export function workloadText({
  num_prompts,
  request_rate,
  burstiness,
  max_concurrency,
  options,
}: ThroughputResults): string {
  const prompts = options.dataset ?? `random tokens, ${options.input_len} in, ${options.output_len} out`;
  const prefix = options.prefix_len > 0 ? `, ${options.prefix_len} shared in front` : "";
  const gaps = burstiness === 1 ? "Poisson" : `burstiness ${burstiness}`;
  const arrivals = request_rate === "inf" ? "all at once" : `${request_rate} a second (${gaps})`;
  const bound = max_concurrency === null ? "" : `, ${max_concurrency} at most at once`;
  return `${formatCount(num_prompts)} requests: ${prompts}${prefix}; ${arrivals}${bound}`;
}

/** Names and figures of all but the latencies; parts of the row above them are indented. */
export function figureRows(results: ThroughputResults): [string, string][] {
  const { kv, prefix_cache: prefix, steps, memory, max_concurrent_requests: atOnce } = results;
  const or = (value: number | null, format: (value: number) => string) =>
    value === null ? NOTHING : format(value);
  const percent = (value: number | null) => or(value, formatPercent);
  const shared = prefix.shared_prefix_hit_percent;
  return [
    ["requests finished", `${formatCount(results.completed)} of ${formatCount(results.num_prompts)}`],
    ["duration", formatSeconds(results.duration)],
    ["input tokens", formatCount(results.total_input_tokens)],
    ["output tokens", formatCount(results.total_output_tokens)],
    ["requests per second", rate(results.request_throughput)],
    ["output tokens per second", rate(results.output_throughput)],
    ["all tokens per second", rate(results.total_token_throughput)],
    ["requests at once, at most", formatCount(atOnce)],
    [
      "steps",
      `${formatCount(steps.count)} of ${or(steps.mean_ms, (ms) => formatSeconds(ms / 1e3))} on average`,
    ],
    ["host busy, of a step", percent(steps.host_share_percent)],
    [
      "  of a full decode step",
      steps.full_decode === null
        ? NOTHING
        : `${percent(steps.full_decode.host_share_percent)} (${formatCount(steps.full_decode.sequences)} sequences)`,
    ],
    ["KV slots held, mean", percent(kv.mean_usage_percent)],
    ["  at most", percent(kv.peak_usage_percent)],
    ["KV waste, of those held", percent(kv.waste_percent)],
    ["KV tokens per slot", or(kv.sharing, formatFactor)],
    ["prefix cache, of prompt tokens", percent(prefix.hit_rate_percent)],
    ...(shared === null ? [] : [["  of the shared tokens", percent(shared)] as [string, string]]),
    ["preemptions", formatCount(results.preemptions)],
    ["tokens computed again", formatCount(results.recomputed_tokens)],
    ["peak GPU memory", formatBytes(memory.peak_bytes)],
    ...PURPOSES.map((p): [string, string] => [`  ${p}`, formatBytes(memory.peak_by_purpose[p] ?? 0)]),
  ];
}

/** A head, then one row a metric: mean, standard deviation, median and the percentiles, each row in the unit of its median. */
export function latencyRows(results: ThroughputResults): string[][] {
  const percentiles = results.options.percentiles.filter((p) => p !== 50);
  const head = ["", "mean", "std", "median", ...percentiles.map((p) => `p${p}`)];
  return [
    head,
    ...METRICS.map((metric) => {
      const names = ["mean", "std", "median"] as const;
      const values = [
        ...names.map((name) => results[`${name}_${metric}_ms`]),
        ...percentiles.map((p) => results[percentileName(p, metric)] ?? null),
      ];
      const unit = timeUnit((results[`median_${metric}_ms`] ?? 0) / 1e3);
      return [
        METRIC_NAMES[metric],
        ...values.map((ms) => (ms === null ? NOTHING : formatSeconds(ms / 1e3, unit))),
      ];
    }),
  ];
}

/** Names to the left, figures to the right. */
function figureLines(rows: readonly [string, string][]): string[] {
  const widest = Math.max(...rows.map(([name]) => name.length));
  const figures = Math.max(...rows.map(([, figure]) => figure.length));
  return rows.map(([name, figure]) => `${name.padEnd(widest)}  ${figure.padStart(figures)}`);
}
