import { type LatencyResults, PERCENTILES } from "./latency-results.ts";
import { formatBytes, formatCount, formatSeconds, timeUnit } from "./units.ts";

/** What stands for a figure that does not exist. */
const NOTHING = "–";

/** How a step was timed, in words. */
const TIMING = {
  visible: "each token is waited for before the next step is submitted",
  pipelined: "steps run ahead, tokens come back in rounds",
} as const;

/** The whole answer as plain text: what was run, one figure a line, what the figures mean. */
export function latencyText(results: LatencyResults): string {
  const { model, options, adapter, runtime, decode_reads: reads } = results;
  const unit = timeUnit(results.avg_latency);
  const time = (value: number) => formatSeconds(value, unit);
  const rows: [string, string][] = [
    ["latency, mean", time(results.avg_latency)],
    ["standard deviation", time(results.std_latency)],
    ...PERCENTILES.map((p): [string, string] => [`p${p}`, time(results.percentiles[p]!)]),
    ["time to first token", formatSeconds(results.time_to_first_token)],
    ["time per token, decode", perToken(results.ms_per_token)],
    ["the same, median", perToken(results.ms_per_token_p50)],
    ["tokens per second", results.tokens_per_s.toFixed(1)],
    [
      "achieved bandwidth",
      results.achieved_gb_per_s === null ? NOTHING : `${rate(results.achieved_gb_per_s)} GB/s`,
    ],
    ["surplus tokens", formatCount(results.surplus_tokens)],
  ];
  const widest = Math.max(...rows.map(([name]) => name.length));
  const figures = Math.max(...rows.map(([, figure]) => figure.length));
  return [
    `${adapter.description}, ${runtime.name} ${runtime.version}, profile ${adapter.profile}`,
    `${model.name}: weights ${model.dtype}, KV ${options.kv}${options.kv === "none" ? "" : ` ${model.kvDtype}`}; ` +
      `${options.batch_size} × (${options.input_len} tokens in, ${options.output_len} out), ` +
      `${options.temperature === 0 ? "greedy" : `temperature ${options.temperature}`}`,
    `${options.timing}: ${TIMING[options.timing]}`,
    "",
    ...rows.map(([name, figure]) => `${name.padEnd(widest)}  ${figure.padStart(figures)}`),
    "",
    `Iterations: ${results.latencies.length}, after ${options.num_iters_warmup} for warming up. A latency is of the whole batch, input and output.`,
    "Time per token: latency less the time to the first token, by the tokens after it.",
    `Achieved bandwidth: bytes that a decode step must read, weights ${formatBytes(reads.weight_bytes)} and KV ${formatBytes(reads.kv_bytes)}`,
    "on average, by the time per token.",
    ...(adapter.software ? ["Software adapter: figures of a CPU, no benchmark of any GPU."] : []),
    ...(results.incomplete === undefined
      ? []
      : [`Incomplete: ${results.incomplete}; the figures are of the iterations before.`]),
  ].join("\n");
}

/** Milliseconds with four digits or so: 0.2513 ms is another result than 0.2549 ms. */
function perToken(ms: number | null): string {
  if (ms === null) return NOTHING;
  return `${ms.toFixed(ms < 10 ? 4 : 2)} ms`;
}

function rate(gbPerSecond: number): string {
  return gbPerSecond.toFixed(gbPerSecond < 100 ? 2 : 0);
}
