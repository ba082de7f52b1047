import { NoAdapter } from "./errors.ts";
import type { Gpu } from "./gpu.ts";
import { type Dispatch, Recording } from "./recording.ts";

/** Work that can be encoded any number of times: a recording, or one that is kept for replay. */
export interface Timeable {
  readonly dispatches: readonly Dispatch[];
  encode(pass: GPUComputePassEncoder): void;
}

/** When one dispatch ran, in seconds from the beginning of the first. */
export interface DispatchTime {
  readonly begin: number;
  readonly end: number;
  /** How long it took: not end - begin, since each of the three is a median of its own. */
  readonly seconds: number;
}

/** WebGPU's bound on the queries of a set; a dispatch needs two. */
const MAX_QUERIES = 4096;

/** Bytes of a resolved timestamp. */
const STAMP_BYTES = 8;

/**
 * Seconds that the GPU needs for the work that `record` adds, run `repeats` times in one pass: the time of one run.
 *
 * Timestamps exist at pass boundaries only, so short work needs many repeats. Needs the feature timestamp-query.
 */
export async function timeOnGpu(gpu: Gpu, record: () => void, repeats: number): Promise<number> {
  checkTimer(gpu);
  gpu.submit();
  record();
  return timeRecording(gpu, gpu.takeRecording(), repeats);
}

/** Like timeOnGpu, for work that was recorded before. */
export async function timeRecording(gpu: Gpu, work: Timeable, repeats: number): Promise<number> {
  checkTimer(gpu);
  const [stamps] = await timestamps(gpu, 1, (next) => {
    const pass = next();
    for (let i = 0; i < repeats; i++) work.encode(pass);
    pass.end();
  });
  return Math.max(0, stamps!.end - stamps!.begin) / repeats;
}

/** Seconds by the host's clock for one run: encoded, submitted in one pass, and waited for until the GPU is done. */
export async function timeOnHost(gpu: Gpu, work: Timeable): Promise<number> {
  await gpu.finish();
  const start = performance.now();
  const encoder = gpu.device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  work.encode(pass);
  pass.end();
  gpu.device.queue.submit([encoder.finish()]);
  gpu.memory.afterSubmit();
  await gpu.finish();
  return (performance.now() - start) / 1e3;
}

/**
 * When each dispatch of a recording ran, in its order: the median over `repeats` runs of the whole.
 *
 * Timestamps exist at pass boundaries only, so each dispatch is given a pass of its own; what a pass costs is part of its
 * time, and the sum is more than the recording takes in one pass. `before` is called before each run. Throws NoAdapter without the feature timestamp-query.
 */
export async function timeEachDispatch(
  gpu: Gpu,
  work: Timeable,
  repeats: number,
  before: () => void = () => {},
): Promise<DispatchTime[]> {
  checkTimer(gpu);
  const alone = work.dispatches.map((dispatch) => {
    const recording = new Recording();
    recording.add(dispatch);
    return recording;
  });
  if (alone.length === 0) return [];
  const runs: Stamps[][] = [];
  for (let i = 0; i < repeats; i++) {
    before();
    const run = await timestamps(gpu, alone.length, (next) => {
      for (const recording of alone) {
        const pass = next();
        recording.encode(pass);
        pass.end();
      }
    });
    runs.push(run);
  }
  const medianOf = (value: (stamps: Stamps, first: Stamps) => number, i: number) =>
    middle(runs.map((run) => value(run[i]!, run[0]!)));
  return alone.map((_, i) => ({
    begin: medianOf((stamps, first) => stamps.begin - first.begin, i),
    end: medianOf((stamps, first) => stamps.end - first.begin, i),
    seconds: medianOf((stamps) => Math.max(0, stamps.end - stamps.begin), i),
  }));
}

/** Throws NoAdapter when the adapter has no timestamps. */
export function checkTimer(gpu: Gpu): void {
  if (!gpu.features.has("timestamp-query"))
    throw new NoAdapter(`FEATURE: the timer needs timestamp-query, which ${gpu.info.description} lacks`);
}

/** Beginning and end of a pass in seconds, on the GPU's own clock. */
interface Stamps {
  readonly begin: number;
  readonly end: number;
}

/**
 * Run `encode`, which begins `count` passes by its argument and ends each, with a timestamp at both ends of every pass; one
 * submit, and the timestamps in the order of the passes.
 */
async function timestamps(
  gpu: Gpu,
  count: number,
  encode: (next: () => GPUComputePassEncoder) => void,
): Promise<Stamps[]> {
  const { device } = gpu;
  gpu.submit();
  const perSet = MAX_QUERIES / 2;
  const querySets = Array.from({ length: Math.ceil(count / perSet) }, (_, i) =>
    device.createQuerySet({ type: "timestamp", count: 2 * Math.min(perSet, count - i * perSet) }),
  );
  const bytes = 2 * STAMP_BYTES * count;
  const resolved = gpu.memory.alloc(bytes, "tables", "timestamps");
  try {
    const encoder = device.createCommandEncoder();
    let begun = 0;
    encode(() => {
      const querySet = querySets[Math.floor(begun / perSet)]!;
      const first = 2 * (begun % perSet);
      begun++;
      const timestampWrites = {
        querySet,
        beginningOfPassWriteIndex: first,
        endOfPassWriteIndex: first + 1,
      };
      return encoder.beginComputePass({ timestampWrites });
    });
    // A full set takes a multiple of 256 bytes, where WebGPU wants each to begin.
    querySets.forEach((set, i) => {
      encoder.resolveQuerySet(set, 0, set.count, resolved.buffer, i * MAX_QUERIES * STAMP_BYTES);
    });
    device.queue.submit([encoder.finish()]);
    gpu.memory.afterSubmit();
    const stamps = new BigUint64Array(await gpu.read({ allocation: resolved, offset: 0, bytes }));
    // From the first on, since nanoseconds since the machine's start may be more than a number holds exactly.
    const seconds = (i: number) => Number(stamps[i]! - stamps[0]!) / 1e9;
    return Array.from({ length: count }, (_, i) => ({ begin: seconds(2 * i), end: seconds(2 * i + 1) }));
  } finally {
    for (const set of querySets) set.destroy();
    gpu.memory.free(resolved);
  }
}

/** The middle value, or the mean of the two in the middle. */
function middle(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = (sorted.length - 1) / 2;
  return (sorted[Math.floor(half)]! + sorted[Math.ceil(half)]!) / 2;
}
