import type { Gpu } from "../gpu/gpu.ts";
import { timeOnGpu } from "../gpu/timer.ts";
import { median } from "./measure.ts";

/** Timestamps are taken by the GPU at both ends of a pass; the wall clock runs on the host and sees its work too. */
export type TimingMethod = "timestamp-query" | "wall-clock";

export interface KernelTime {
  readonly method: TimingMethod;
  /** Median over the passes: one call, the cost of its dispatch included. */
  readonly seconds: number;
  /** One call in each pass: its time by its calls. */
  readonly passes: readonly number[];
  readonly callsPerPass: number;
}

/** A pass shorter than this is mostly its own beginning and end, in seconds. */
const MIN_PASS_SECONDS: Record<TimingMethod, number> = { "timestamp-query": 2e-3, "wall-clock": 20e-3 };

/** Bounds what the host has to encode for a pass. */
const MAX_CALLS = 20_000;

/**
 * Time `record`, which records `calls` calls of a kernel: a warm-up, one pass to see how long it takes, then `passes`
 * passes of as many repeats as fill MIN_PASS_SECONDS.
 *
 * By timestamp queries; where the adapter has none, or has some that stand still, by the wall clock from before the
 * recording until the GPU is done.
 */
export async function timeKernel(
  gpu: Gpu,
  record: () => void,
  calls: number,
  passes: number,
): Promise<KernelTime> {
  if (gpu.features.has("timestamp-query")) {
    const time = await measure("timestamp-query", (repeats) => timeOnGpu(gpu, record, repeats));
    if (time.seconds > 0) return time;
  }
  return measure("wall-clock", (repeats) => timeOnHost(gpu, record, repeats));

  async function measure(
    method: TimingMethod,
    time: (repeats: number) => Promise<number>,
  ): Promise<KernelTime> {
    await time(1);
    const once = await time(1);
    const most = Math.max(1, Math.floor(MAX_CALLS / calls));
    // Coarse timestamps may give 0 for a single repeat; then take what the bound allows.
    const repeats = once > 0 ? Math.min(most, Math.ceil(MIN_PASS_SECONDS[method] / once)) : most;
    const seconds: number[] = [];
    for (let i = 0; i < passes; i++) seconds.push((await time(repeats)) / calls);
    return { method, seconds: median(seconds), passes: seconds, callsPerPass: repeats * calls };
  }
}

/** Seconds of one `record` by the wall clock. */
async function timeOnHost(gpu: Gpu, record: () => void, repeats: number): Promise<number> {
  await gpu.finish();
  const start = performance.now();
  for (let i = 0; i < repeats; i++) record();
  await gpu.finish();
  return (performance.now() - start) / 1e3 / repeats;
}
