/**
 * The file `profile.json` of `quire profile`: its shape, its units and its check. Every duration is in seconds, every amount
 * of memory in bytes, every rate per second.
 */
import { z } from "zod";
import { CACHE_MODES, sum } from "../kv/cache.ts";
import { ENVIRONMENT, MODEL } from "./results.ts";

/** Changes whenever a field changes its meaning. */
export const PROFILE_SCHEMA = "quire-profile/1";

const count = z.int().min(0);
const seconds = z.number().min(0);
const rate = z.number().min(0).nullable();

/** Rates of work in a time; null where the kernel does not tell its work, or the peak was not measured. */
const rates = {
  bytes: z.number().min(0).nullable(),
  flops: z.number().min(0).nullable(),
  bytesPerSecond: rate,
  flopsPerSecond: rate,
  /** Which peak sets the shortest time that the work could take. */
  bound: z.enum(["memory", "arithmetic"]).nullable(),
  /** That time by the measured one; above 1 where a cache is faster than the memory behind it. */
  shareOfPeak: rate,
};

const dispatch = z.object({
  kernel: z.string(),
  /** Part of the model, such as "layer 0"; empty where nobody said. */
  stage: z.string(),
  shape: z.string(),
  workgroups: z.tuple([count, count, count]),
  /** From the beginning of the step's first dispatch. */
  beginSeconds: z.number(),
  /** In a pass of its own, whose cost is in it: medians over the repeats. */
  seconds,
  ...rates,
});

/** All dispatches of one kernel with one shape. */
const group = z.object({ kernel: z.string(), shape: z.string(), calls: z.int().min(1), seconds, ...rates });

/**
 * Where the time of the step goes: a model of it, whose parts sum to `gpuSeconds`. Null where a peak was not measured.
 */
const breakdown = z.object({
  /** Dispatches times the smallest dependent dispatch. */
  dispatchSeconds: seconds,
  /** All bytes by the memory peak. */
  memorySeconds: seconds,
  /** Operations by the arithmetic peak, as far as they take longer than the same dispatch's bytes. */
  arithmeticSeconds: seconds,
  /** The rest: latency of loads, idle processors, barriers; below 0 where caches are faster than the memory peak. */
  otherSeconds: z.number(),
  /** Dispatches that do not tell their work: theirs is in the rest. */
  untold: count,
});

const step = z.object({
  name: z.enum(["decode", "prefill"]),
  /** Tokens that the last of the new tokens sees, itself included. */
  contextLength: count,
  newTokens: count,
  /** The step in one pass, as it always runs, by the GPU's clock. */
  gpuSeconds: seconds,
  /** The same by the host's clock, from before the encoding until the host knows that it is done. */
  hostSeconds: seconds,
  /** The dispatches' times together, each in a pass of its own. */
  profiledSeconds: seconds,
  breakdown: breakdown.nullable(),
  /** In the order of their first dispatch. */
  kernels: z.array(group),
  /** In the order in which they run. */
  dispatches: z.array(dispatch),
});

const peak = z.object({ perSecond: z.number().positive(), by: z.string() });

export const PROFILE_RESULTS = z.object({
  schema: z.literal(PROFILE_SCHEMA),
  ...ENVIRONMENT,
  model: MODEL,
  options: z.object({
    kv: z.enum(CACHE_MODES),
    context: count,
    promptLength: count,
    pageSize: count,
    repeat: z.int().min(1),
    kernels: z.string(),
  }),
  peaks: z.object({ memory: peak.nullable(), arithmetic: peak.nullable(), failures: z.array(z.string()) }),
  /** The smallest dispatch that waits for the one before it: an addition of four numbers. */
  emptyDispatchSeconds: seconds,
  steps: z.array(step),
});

export type ProfileResults = z.infer<typeof PROFILE_RESULTS>;
export type ProfiledStep = z.infer<typeof step>;
export type ProfiledDispatch = z.infer<typeof dispatch>;
export type KernelGroup = z.infer<typeof group>;
type Rates = Pick<ProfiledDispatch, keyof typeof rates>;
type Peaks = ProfileResults["peaks"];

/** What a dispatch is known to have done, and how long that took. */
export interface MeasuredDispatch
  extends Pick<ProfiledDispatch, "kernel" | "stage" | "shape" | "workgroups" | "beginSeconds" | "seconds"> {
  /** Null where its kernel does not tell. */
  readonly work: { readonly bytes: number; readonly flops: number } | null;
}

export interface MeasuredStep
  extends Pick<ProfiledStep, "name" | "contextLength" | "newTokens" | "gpuSeconds" | "hostSeconds"> {
  readonly dispatches: readonly MeasuredDispatch[];
}

/** From what was measured of a step to all that follows from it. */
export function profiledStep(
  { dispatches: measured, ...rest }: MeasuredStep,
  peaks: Peaks,
  emptyDispatchSeconds: number,
): ProfiledStep {
  return {
    ...rest,
    profiledSeconds: sum(measured.map((d) => d.seconds)),
    breakdown: breakdownOf(measured, rest.gpuSeconds, peaks, emptyDispatchSeconds),
    kernels: groups(measured, peaks),
    dispatches: measured.map(({ work, ...d }) => ({ ...d, ...ratesOf(work, d.seconds, peaks) })),
  };
}

function groups(measured: readonly MeasuredDispatch[], peaks: Peaks): KernelGroup[] {
  const byKey = new Map<string, MeasuredDispatch[]>();
  for (const d of measured) {
    const key = `${d.kernel} ${d.shape}`;
    byKey.set(key, [...(byKey.get(key) ?? []), d]);
  }
  return [...byKey.values()].map((all) => {
    const { kernel, shape } = all[0]!;
    const seconds = sum(all.map((d) => d.seconds));
    const work = all.every((d) => d.work)
      ? { bytes: sum(all.map((d) => d.work!.bytes)), flops: sum(all.map((d) => d.work!.flops)) }
      : null;
    return { kernel, shape, calls: all.length, seconds, ...ratesOf(work, seconds, peaks) };
  });
}

/** The roofline: work takes at least the time for its bytes and at least the time for its operations. */
function ratesOf(work: MeasuredDispatch["work"], time: number, { memory, arithmetic }: Peaks): Rates {
  if (!work)
    return {
      bytes: null,
      flops: null,
      bytesPerSecond: null,
      flopsPerSecond: null,
      bound: null,
      shareOfPeak: null,
    };
  const { bytes, flops } = work;
  // A timestamp that stands still gives no rate.
  const perSecond = (amount: number) => (time > 0 ? amount / time : null);
  const known = memory && (arithmetic || flops === 0);
  const forBytes = memory ? bytes / memory.perSecond : 0;
  const forFlops = arithmetic ? flops / arithmetic.perSecond : 0;
  return {
    bytes,
    flops,
    bytesPerSecond: perSecond(bytes),
    flopsPerSecond: perSecond(flops),
    bound: known ? (forFlops > forBytes ? "arithmetic" : "memory") : null,
    shareOfPeak: known ? perSecond(Math.max(forBytes, forFlops)) : null,
  };
}

function breakdownOf(
  measured: readonly MeasuredDispatch[],
  gpuSeconds: number,
  { memory, arithmetic }: Peaks,
  emptyDispatchSeconds: number,
): ProfiledStep["breakdown"] {
  if (!memory || !arithmetic) return null;
  const works = measured.flatMap((d) => d.work ?? []);
  const dispatchSeconds = measured.length * emptyDispatchSeconds;
  const memorySeconds = sum(works.map((w) => w.bytes)) / memory.perSecond;
  const arithmeticSeconds = sum(
    works.map((w) => Math.max(0, w.flops / arithmetic.perSecond - w.bytes / memory.perSecond)),
  );
  return {
    dispatchSeconds,
    memorySeconds,
    arithmeticSeconds,
    otherSeconds: gpuSeconds - dispatchSeconds - memorySeconds - arithmeticSeconds,
    untold: measured.length - works.length,
  };
}
