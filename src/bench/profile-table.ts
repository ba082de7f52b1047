import type { KernelGroup, ProfiledStep, ProfileResults } from "./profile-results.ts";

/** What stands for a figure that does not exist. */
const NOTHING = "–";

const HEAD = ["kernel", "shape", "calls", "µs each", "µs all", "share", "GB/s", "GFLOP/s", "of peak"];
/** Columns of words, which begin at the left; figures end at the right. */
const WORDS = 2;

/** The whole answer as plain text: machine, peaks, then for each step its kernels, its totals and where the time goes. */
export function profileText(results: ProfileResults): string {
  const { adapter, runtime, model, options, peaks } = results;
  const peak = (which: "memory" | "arithmetic", unit: string) => {
    const found = peaks[which];
    return found
      ? `${figure(found.perSecond / 1e9)} ${unit}, by ${found.by}`
      : "not measured: its probes failed";
  };
  return [
    `${adapter.description}, ${runtime.name} ${runtime.version}, profile ${adapter.profile}`,
    `${model.name}: weights ${model.dtype}, KV ${options.kv} ${model.kvDtype}`,
    `peak memory:     ${peak("memory", "GB/s")}`,
    `peak arithmetic: ${peak("arithmetic", "GFLOP/s")}`,
    `empty dispatch:  ${micro(results.emptyDispatchSeconds)}, an addition of four numbers that waits for the one before it`,
    ...results.steps.flatMap((step) => ["", ...stepText(step)]),
    "",
    "µs each and µs all: every dispatch in a pass of its own, whose cost is in it; medians over the repeats. GB/s: inputs and",
    "outputs, each byte counted once. of peak: the least time for a kernel's bytes (mem) or operations (alu) at this run's peaks,",
    "by its time; above 100 % where a cache holds the data.",
    "Where the time goes is reckoned, not measured: dispatches × the empty one; bytes by the memory peak; operations by the",
    "arithmetic peak as far as the same dispatch's bytes take less; the rest is latency and all else.",
    ...(adapter.software ? ["Software adapter: figures of a CPU, no benchmark of any GPU."] : []),
  ].join("\n");
}

function stepText(step: ProfiledStep): string[] {
  const what =
    step.name === "decode"
      ? `Decode step: one token that sees ${step.contextLength}`
      : `Prefill step: a prompt of ${step.newTokens} tokens`;
  return [
    `${what}; ${step.dispatches.length} dispatches`,
    ...table([HEAD, ...step.kernels.map((k) => row(k, step.profiledSeconds))]),
    `each dispatch in its own pass, together: ${micro(step.profiledSeconds)}`,
    `the step in one pass: ${micro(step.gpuSeconds)} on the GPU, ${micro(step.hostSeconds)} by the host's clock`,
    ...breakdownText(step),
  ];
}

function row(k: KernelGroup, total: number): string[] {
  const rate = (perSecond: number | null) => (perSecond ? figure(perSecond / 1e9) : NOTHING);
  const share = total > 0 ? `${((100 * k.seconds) / total).toFixed(1)} %` : NOTHING;
  const ofPeak =
    k.bound && k.shareOfPeak !== null
      ? `${figure(100 * k.shareOfPeak)} % ${k.bound === "memory" ? "mem" : "alu"}`
      : NOTHING;
  return [
    k.kernel,
    k.shape,
    String(k.calls),
    figure((k.seconds / k.calls) * 1e6),
    figure(k.seconds * 1e6),
    share,
    rate(k.bytesPerSecond),
    rate(k.flopsPerSecond),
    ofPeak,
  ];
}

/** The shares of the step in one pass; a rest below zero is told as what it means. */
function breakdownText({ breakdown, gpuSeconds }: ProfiledStep): string[] {
  if (!breakdown) return ["where the time goes: unknown, since a peak was not measured"];
  const { dispatchSeconds, memorySeconds, arithmeticSeconds, otherSeconds, untold } = breakdown;
  const part = (name: string, seconds: number) =>
    `${name} ${micro(seconds)}${gpuSeconds > 0 ? ` (${((100 * seconds) / gpuSeconds).toFixed(0)} %)` : ""}`;
  const parts = [
    part("dispatch", dispatchSeconds),
    part("memory", memorySeconds),
    part("arithmetic", arithmeticSeconds),
    part("latency and other", otherSeconds),
  ];
  return [
    `where the ${micro(gpuSeconds)} go: ${parts.join(", ")}`,
    ...(otherSeconds < 0
      ? ["  the rest is below zero: caches are faster than the memory peak, or dispatches overlap"]
      : []),
    ...(untold > 0 ? [`  dispatches that do not tell their work, which is in the rest: ${untold}`] : []),
  ];
}

function micro(seconds: number): string {
  return `${figure(seconds * 1e6)} µs`;
}

/** Three significant digits, never in powers of ten. */
function figure(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}

function table(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, c) => Math.max(...rows.map((r) => r[c]!.length)));
  return rows.map((cells) =>
    cells.map((cell, c) => (c < WORDS ? cell.padEnd(widths[c]!) : cell.padStart(widths[c]!))).join("  "),
  );
}
