import type { Peak } from "./peaks.ts";
import { SHAPES } from "./shader-case.ts";
import { nameOf, type ShaderBenchResults, type ShaderResult } from "./shaders.ts";

/** What stands for a figure that does not exist. */
const NOTHING = "–";

/** Marks a share that a cache helped with. */
const CACHED = "*";

const HEAD = ["kernel", "variant", "shape", "µs", "GB/s", "GFLOP/s", "of peak", "error", "allowed"];
/** Columns of words, which begin at the left; figures end at the right. */
const WORDS = 3;

/** The whole answer as plain text: machine, peaks, one line for each case, what the figures mean, what failed. */
export function shadersText(results: ShaderBenchResults): string {
  const { adapter, runtime, options, peaks, cases } = results;
  const implementation = runtime.webgpu ? `, webgpu ${runtime.webgpu}` : "";
  return [
    `${adapter.description}, ${runtime.name} ${runtime.version}${implementation}, profile ${adapter.profile}; shapes of ${SHAPES[options.shape].name}`,
    `peak memory:     ${peakText(peaks.memory, "GB/s")}`,
    `peak arithmetic: ${peakText(peaks.arithmetic, "GFLOP/s")}`,
    "",
    ...table([HEAD, ...cases.map(row)]),
    "",
    ...notes(results),
    ...verdict(results),
  ].join("\n");
}

function peakText(peak: Peak | null, unit: string): string {
  return peak ? `${figure(peak.perSecond / 1e9)} ${unit}, by ${peak.by}` : "not measured: its probes failed";
}

function row({ kernel, variant, shape, ok, check, timing }: ShaderResult): string[] {
  const rate = (perSecond: number | undefined) => (perSecond ? figure(perSecond / 1e9) : NOTHING);
  return [
    kernel,
    variant,
    shape,
    timing ? figure(timing.seconds * 1e6) : NOTHING,
    rate(timing?.bytesPerSecond),
    rate(timing?.flopsPerSecond),
    ok ? share(timing) : "FAILED",
    check.maxAbs === null ? "NaN" : power(check.maxAbs),
    power(check.maxAbsAllowed),
  ];
}

/** "62 % mem", with a mark where the inputs are rotated, but are too small to leave the cache by that. */
function share(timing: ShaderResult["timing"]): string {
  if (!timing?.bound || timing.shareOfPeak === null) return NOTHING;
  const mark = timing.cold || timing.inputSets === 1 ? "" : CACHED;
  return `${figure(timing.shareOfPeak * 100)} %${mark} ${timing.bound === "memory" ? "mem" : "alu"}`;
}

function notes({ adapter, cases, options }: ShaderBenchResults): string[] {
  const timings = cases.flatMap((c) => c.timing ?? []);
  const wall = timings.some((t) => t.method === "wall-clock");
  const clock = wall
    ? "the wall clock of the host, since the adapter has no usable timestamps"
    : "the GPU's timestamps";
  return [
    "Checked first, against float64: all of the result finite; its corners and up to 128 random elements within the largest",
    'error and the mean square error that are allowed ("error" is the largest; --json has both).',
    `µs: one call, dispatch included; each waits for the one before it, as in a model. Median of ${options.repeat} by ${clock}.`,
    "GB/s: inputs and result, each byte counted once. of peak: the least time for a kernel's bytes (mem) or operations (alu)",
    "at this run's peaks, by its time. The arithmetic peak is that of our best product, not the hardware's own.",
    options.rotateBytes === 0
      ? "Inputs are not rotated: a cache may hold them."
      : `Inputs rotate through copies until ${options.rotateBytes / 1e6} MB were read; ${CACHED} = too small for that, a cache may hold them.`,
    ...(adapter.software ? ["Software adapter: figures of a CPU, no benchmark of any GPU."] : []),
  ];
}

function verdict({ cases, peaks }: ShaderBenchResults): string[] {
  const failed = cases.filter((c) => !c.ok);
  const lines = [
    ...failed.map((c) => `${nameOf(c)}: ${c.failure}`),
    ...peaks.failures.map((failure) => `peak by ${failure}`),
  ];
  if (lines.length === 0)
    return ["", `Cases that agree with the reference: ${cases.length} of ${cases.length}.`];
  return ["", `FAILED: ${failed.length} of ${cases.length} cases`, ...lines];
}

/** Three significant digits, never in powers of ten. */
function figure(value: number): string {
  const decimals = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return value.toFixed(decimals);
}

function power(value: number): string {
  return value === 0 ? "0" : value.toExponential(1);
}

function table(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, c) => Math.max(...rows.map((r) => r[c]!.length)));
  return rows.map((cells) =>
    cells.map((cell, c) => (c < WORDS ? cell.padEnd(widths[c]!) : cell.padStart(widths[c]!))).join("  "),
  );
}
