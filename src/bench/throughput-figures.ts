// From the requests and steps of a measured workload to the figures of its results. Pure; nothing is rounded.
import type { RequestOutput } from "../generate/engine-types.ts";
import { sum } from "../kv/cache.ts";
import { mean, percentiles as ranked } from "./measure.ts";
import type { MeasuredThroughput, TimedStep } from "./throughput.ts";
import { METRICS, type Metric, percentileName, type ThroughputFigures } from "./throughput-results.ts";

/** What one request waited for, in milliseconds; see METRICS. */
export interface RequestLatency {
  readonly ttft: number;
  /** Null for an answer of one token. */
  readonly tpot: number | null;
  /** Between each of its tokens and the next. */
  readonly itl: readonly number[];
  readonly e2el: number;
}

/** The times of a finished request. */
export function requestLatency({ times, tokenTimes }: RequestOutput): RequestLatency {
  const { submitted, firstToken = tokenTimes[0] ?? submitted, finished = firstToken } = times;
  const ttft = (firstToken - submitted) * 1e3;
  const e2el = (finished - submitted) * 1e3;
  return {
    ttft,
    e2el,
    tpot: tokenTimes.length > 1 ? (e2el - ttft) / (tokenTimes.length - 1) : null,
    itl: tokenTimes.slice(1).map((time, i) => (time - tokenTimes[i]!) * 1e3),
  };
}

/** Every sample of each metric, in milliseconds. */
export function latencySamples(measured: Pick<MeasuredThroughput, "finished">): Record<Metric, number[]> {
  const all = measured.finished.map(({ output }) => requestLatency(output));
  return {
    ttft: all.map((r) => r.ttft),
    tpot: all.flatMap((r) => r.tpot ?? []),
    itl: all.flatMap((r) => r.itl),
    e2el: all.map((r) => r.e2el),
  };
}

/** New tokens of all of a request's sequences. */
export function outputTokens({ completions }: RequestOutput): number {
  return sum(completions.map((c) => c.tokens.length));
}

/** The figures, and the percentiles asked for under their names (`percentileName`). `prefixLen` tokens are common to all prompts. */
export function throughputFigures(
  measured: MeasuredThroughput,
  percentiles: readonly number[],
  prefixLen: number,
): ThroughputFigures & Record<`p${number}_${Metric}_ms`, number | null> {
  const { duration, refused, counters } = measured;
  const outputs = measured.finished.map((f) => f.output);
  const input = sum(outputs.map((o) => o.promptTokens));
  const output = sum(outputs.map(outputTokens));
  const perSecond = (amount: number) => (duration > 0 ? amount / duration : 0);
  return {
    duration,
    completed: outputs.length,
    failed: refused.length,
    total_input_tokens: input,
    total_output_tokens: output,
    request_throughput: perSecond(outputs.length),
    output_throughput: perSecond(output),
    total_token_throughput: perSecond(input + output),
    max_output_tokens_per_s: busiestSecond(measured),
    max_concurrent_requests: mostAtOnce(outputs),
    ...latencyFigures(latencySamples(measured), percentiles),
    kv: kvFigures(measured.steps),
    prefix_cache: {
      queries: counters.prefixQueries,
      hits: counters.prefixHits,
      hit_rate_percent: share(counters.prefixHits, counters.prefixQueries),
      shared_prefix_hit_percent: sharedHits(outputs, prefixLen),
    },
    preemptions: counters.preemptions,
    recomputed_tokens: counters.recomputedTokens,
    swapped_pages: counters.swappedPages,
    computed_tokens: counters.computedTokens,
    surplus_tokens: counters.surplusTokens,
    steps: { ...stepFigures(measured.steps), full_decode: fullDecode(measured.steps) },
  };
}

type LatencyName = `${"mean" | "median" | "std" | `p${number}`}_${Metric}_ms`;

function latencyFigures(samples: Record<Metric, number[]>, percentiles: readonly number[]) {
  const named = METRICS.flatMap((metric): [LatencyName, number | null][] => {
    const values = samples[metric];
    const [median = null, ...others] = values.length > 0 ? ranked(values, [50, ...percentiles]) : [];
    return [
      [`mean_${metric}_ms`, values.length > 0 ? mean(values) : null],
      [`median_${metric}_ms`, median],
      [`std_${metric}_ms`, values.length > 0 ? populationDeviation(values) : null],
      ...percentiles.map((p, i): [LatencyName, number | null] => [
        percentileName(p, metric),
        others[i] ?? null,
      ]),
    ];
  });
  return Object.fromEntries(named) as Record<LatencyName, number | null>;
}

/** With n in the denominator, as NumPy's std by default. */
function populationDeviation(values: readonly number[]): number {
  const centre = mean(values);
  return Math.sqrt(mean(values.map((v) => (v - centre) ** 2)));
}

/** Output tokens in the fullest of the seconds that follow the start one after another. */
function busiestSecond({ start, finished }: MeasuredThroughput): number {
  const seconds = new Map<number, number>();
  for (const time of finished.flatMap((f) => f.output.tokenTimes)) {
    const second = Math.floor(time - start);
    seconds.set(second, (seconds.get(second) ?? 0) + 1);
  }
  return largest([...seconds.values()]);
}

/** One more at each submit, one less at each end; an end comes before a submit at the same moment. */
function mostAtOnce(outputs: readonly RequestOutput[]): number {
  const changes = outputs
    .flatMap(({ times }): [number, number][] => [
      [times.submitted, 1],
      [times.finished ?? times.submitted, -1],
    ])
    .sort(([a, x], [b, y]) => a - b || x - y);
  let now = 0;
  let most = 0;
  for (const [, change] of changes) {
    now += change;
    most = Math.max(most, now);
  }
  return most;
}

/** Of the shared tokens of all requests but one, which must compute them, those found at the request's first admission. */
function sharedHits(outputs: readonly RequestOutput[], prefixLen: number): number | null {
  const found = sum(outputs.map((o) => Math.min(o.cachedTokens, prefixLen)));
  return share(found, prefixLen * (outputs.length - 1));
}

function kvFigures(steps: readonly TimedStep[]): ThroughputFigures["kv"] {
  /** Slots times seconds. */
  const total = (slots: (kv: TimedStep["kv"]) => number) => sum(steps.map((s) => s.seconds * slots(s.kv)));
  const reserved = total((kv) => kv.reserved);
  const used = total((kv) => kv.used);
  return {
    total_slots: steps[0]?.kv.total ?? null,
    mean_usage_percent: share(
      reserved,
      total((kv) => kv.total),
    ),
    peak_usage_percent:
      steps.length > 0 ? largest(steps.map((s) => share(s.kv.reserved, s.kv.total) ?? 0)) : null,
    waste_percent: share(reserved - used, reserved),
    sharing: used > 0 ? total((kv) => kv.logical) / used : null,
  };
}

function stepFigures(steps: readonly TimedStep[]) {
  const seconds = sum(steps.map((s) => s.seconds));
  return {
    count: steps.length,
    mean_ms: steps.length > 0 ? (1e3 * seconds) / steps.length : null,
    mean_tokens: steps.length > 0 ? mean(steps.map((s) => s.tokens)) : null,
    host_share_percent: share(Math.min(seconds, sum(steps.map((s) => s.hostSeconds))), seconds),
  };
}

/** Steps that compute one token of each of as many sequences as any such step had. */
function fullDecode(steps: readonly TimedStep[]): ThroughputFigures["steps"]["full_decode"] {
  const decode = steps.filter((s) => s.tokens === s.sampled && s.sampled > 0);
  const sequences = largest(decode.map((s) => s.sampled));
  if (sequences === 0) return null;
  return { ...stepFigures(decode.filter((s) => s.sampled === sequences)), sequences };
}

/** 0 of none. There may be more values than a call takes arguments. */
function largest(values: readonly number[]): number {
  return values.reduce((most, value) => Math.max(most, value), 0);
}

/** In percent; null where there is nothing to have a share of. */
function share(part: number, whole: number): number | null {
  return whole > 0 ? (100 * part) / whole : null;
}
