import { BadInput } from "../check.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { environment } from "./environment.ts";
import { type MeasuredCase, measureShader } from "./measure-shader.ts";
import { measurePeaks, type Peaks } from "./peaks.ts";
import type { BenchResults } from "./results.ts";
import { SHAPES, type ShaderCase, type ShapeName } from "./shader-case.ts";
import { shaderCases } from "./shader-cases.ts";
import type { CheckResult } from "./shader-check.ts";
import { ShaderInputs } from "./shader-inputs.ts";
import type { TimingMethod } from "./time-kernel.ts";

// Every kernel at a model's sizes: checked against float64 first, then timed.

/** Changes whenever a field changes its meaning. */
export const SHADERS_SCHEMA = "quire-bench-shaders/1";

/** Inputs of a GPU's kernels are rotated over so many bytes: four times the largest cache of today's GPUs (H200: 50 MB). */
const ROTATE_BYTES = 200e6;

/** Room for GPT-2 124M's token embedding (147 MiB), and for ROTATE_BYTES. */
const LARGE_ARENA = 256 * 2 ** 20;
/** Room for every tensor of the tiny shapes. */
const SMALL_ARENA = 8 * 2 ** 20;

export interface ShaderBenchOptions {
  /** Sizes of which model. Default: those that suit the adapter, see `defaultShape`. */
  readonly shape?: ShapeName;
  /** Only cases whose kernel, variant or shape hold each of these words, in upper or lower case. */
  readonly filter?: string;
  /** Passes that are timed; the median counts. Default 5. */
  readonly repeat?: number;
  /** Other cases in place of those of the shape; `filter` still chooses among them. */
  readonly cases?: readonly ShaderCase[];
  /** Inputs are rotated until so many bytes were read. Default: 200 MB on a GPU, 0 (one set) on the software adapter. */
  readonly rotateBytes?: number;
  readonly signal?: AbortSignal;
  /** Called before each case, and at the end. */
  readonly onProgress?: (done: number, total: number, name: string) => void;
}

/** Rates of a case that was timed. */
export interface ShaderTiming {
  readonly method: TimingMethod;
  /** One call, the cost of its dispatch included: the median over the passes. */
  readonly seconds: number;
  readonly secondsOfPasses: readonly number[];
  readonly callsPerPass: number;
  readonly inputSets: number;
  /** True when the sets are too many bytes for any cache; a small kernel's sets are too few for that. */
  readonly cold: boolean;
  /** Read and written, each byte counted once. */
  readonly bytesPerSecond: number;
  /** 0 where the case counts no operations. */
  readonly flopsPerSecond: number;
  /** Which peak sets the shortest time that the case could take; null when it was not measured. */
  readonly bound: "memory" | "arithmetic" | null;
  /** That time by the measured one, 0 to 1; above 1 where a cache is faster than the memory behind it. */
  readonly shareOfPeak: number | null;
}

export interface ShaderResult {
  readonly kernel: string;
  readonly variant: string;
  readonly shape: string;
  readonly ok: boolean;
  /** What is wrong; null when all is well. */
  readonly failure: string | null;
  readonly readBytes: number;
  readonly writeBytes: number;
  readonly flops: number;
  readonly check: CheckResult;
  /** Null when the check failed. */
  readonly timing: ShaderTiming | null;
}

/** The JSON of `quire bench shaders`: durations in seconds, memory in bytes, rates per second. */
export interface ShaderBenchResults
  extends Pick<BenchResults, "quire" | "createdAt" | "command" | "runtime" | "adapter"> {
  readonly schema: typeof SHADERS_SCHEMA;
  readonly options: {
    readonly shape: ShapeName;
    readonly filter: string | null;
    readonly repeat: number;
    readonly rotateBytes: number;
    readonly kernels: string;
  };
  readonly peaks: Peaks;
  readonly cases: readonly ShaderResult[];
  /** True when every check was passed and all memory came back. */
  readonly ok: boolean;
}

/** GPT-2 124M for a GPU; for a CPU that plays one, sizes that it gets through. */
export function defaultShape(gpu: Gpu): ShapeName {
  return gpu.info.software ? "tiny" : "124m";
}

/**
 * Check and time every kernel. A case that fails its check is reported and not timed, and the others still run.
 * @throws BadInput when the filter fits no case; OutOfMemory when the inputs do not fit.
 */
export async function benchShaders(gpu: Gpu, options: ShaderBenchOptions = {}): Promise<ShaderBenchResults> {
  const { shape = defaultShape(gpu), filter, repeat = 5, signal, onProgress } = options;
  const all = options.cases ?? shaderCases(SHAPES[shape]);
  const cases = matching(
    all.filter((c) => c.suits?.(gpu) ?? true),
    filter,
  );
  const rotateBytes = options.rotateBytes ?? (gpu.info.software ? 0 : ROTATE_BYTES);
  const arenaBytes = gpu.info.software && shape === "tiny" ? SMALL_ARENA : LARGE_ARENA;
  const measureOptions = { passes: repeat, rotateBytes };
  const inputs = new ShaderInputs(gpu, arenaBytes);
  try {
    onProgress?.(0, cases.length, "peaks");
    const peaks = await measurePeaks(gpu, inputs, arenaBytes, measureOptions);
    const results: ShaderResult[] = [];
    for (const shader of cases) {
      signal?.throwIfAborted();
      onProgress?.(results.length, cases.length, nameOf(shader));
      const measured = await measureShader(gpu, inputs, shader, measureOptions);
      results.push(resultOf(shader, measured, peaks, rotateBytes));
    }
    onProgress?.(cases.length, cases.length, "done");
    return {
      schema: SHADERS_SCHEMA,
      ...environment(gpu),
      options: { shape, filter: filter ?? null, repeat, rotateBytes, kernels: gpu.kernels },
      peaks,
      cases: results,
      ok: results.every((r) => r.ok) && peaks.failures.length === 0,
    };
  } finally {
    inputs.free();
  }
}

/** Kernel, variant and shape of a case in one line. */
export function nameOf({ kernel, variant, shape }: Pick<ShaderCase, "kernel" | "variant" | "shape">): string {
  return `${kernel} ${variant} ${shape}`;
}

function matching(cases: readonly ShaderCase[], filter: string | undefined): readonly ShaderCase[] {
  const words = (filter ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const found = cases.filter((c) => words.every((word) => nameOf(c).toLowerCase().includes(word)));
  if (found.length > 0) return found;
  const kernels = [...new Set(cases.map((c) => c.kernel))].join(", ");
  throw new BadInput(`--filter is "${filter}"; it fits no case. Kernels: ${kernels}; variants: f32, f16`);
}

function resultOf(
  shader: ShaderCase,
  { check, inputSets, time, leakedBytes }: MeasuredCase,
  peaks: Peaks,
  rotateBytes: number,
): ShaderResult {
  const { kernel, variant, shape, readBytes, writeBytes, flops } = shader;
  const leak = leakedBytes === 0 ? null : `${leakedBytes} bytes of GPU memory were not given back`;
  const failure = check.failure ?? leak;
  const timing = time && {
    method: time.method,
    seconds: time.seconds,
    secondsOfPasses: time.passes,
    callsPerPass: time.callsPerPass,
    inputSets,
    cold: rotateBytes > 0 && inputSets * readBytes >= rotateBytes,
    bytesPerSecond: (readBytes + writeBytes) / time.seconds,
    flopsPerSecond: flops / time.seconds,
    ...againstPeaks(shader, time.seconds, peaks),
  };
  return {
    kernel,
    variant,
    shape,
    ok: failure === null,
    failure,
    readBytes,
    writeBytes,
    flops,
    check,
    timing,
  };
}

/** The roofline: a kernel takes at least the time for its bytes and at least the time for its operations. */
function againstPeaks(
  { readBytes, writeBytes, flops }: ShaderCase,
  seconds: number,
  { memory, arithmetic }: Peaks,
): Pick<ShaderTiming, "bound" | "shareOfPeak"> {
  if (!memory || (flops > 0 && !arithmetic)) return { bound: null, shareOfPeak: null };
  const forBytes = (readBytes + writeBytes) / memory.perSecond;
  const forFlops = arithmetic ? flops / arithmetic.perSecond : 0;
  return {
    bound: forFlops > forBytes ? "arithmetic" : "memory",
    shareOfPeak: Math.max(forBytes, forFlops) / seconds,
  };
}
