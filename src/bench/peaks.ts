import type { Gpu } from "../gpu/gpu.ts";
import { matmul } from "../ops/matmul.ts";
import { type MeasureOptions, measureShader } from "./measure-shader.ts";
import type { ShaderCase } from "./shader-case.ts";
import { addCase, headCase } from "./shader-cases.ts";
import { productCase } from "./shader-cases-product.ts";
import type { ShaderInputs } from "./shader-inputs.ts";

/** A rate that this run reached, and the kernel that reached it. */
export interface Peak {
  /** Bytes or operations per second. */
  readonly perSecond: number;
  /** Kernel and shape. */
  readonly by: string;
}

/** What cases are compared with. Null when every probe failed its check. */
export interface Peaks {
  /** The most bytes that one of our kernels moved, by large tensors that no cache holds. */
  readonly memory: Peak | null;
  /** The most f32 operations that one of our kernels did: no more than the best matmul, so not the hardware's own rate. */
  readonly arithmetic: Peak | null;
  /** What was wrong with the probes that failed. */
  readonly failures: readonly string[];
}

/** Columns of the memory probes: GPT-2 XL's are 1600; wider rows change nothing. */
const PROBE_COLUMNS = 1024;

/** Products whose arithmetic outweighs their bytes, for a GPU and for a CPU that plays one. */
const LARGE = { name: "square", K: 2048, N: 2048 };
const SMALL = { name: "small", K: 192, N: 768 };

/**
 * Measure the peaks of this run: an addition and a reading product over half of `arenaBytes` each, and a large matrix
 * product.
 */
export async function measurePeaks(
  gpu: Gpu,
  inputs: ShaderInputs,
  arenaBytes: number,
  options: MeasureOptions,
): Promise<Peaks> {
  const bytes = Math.min(arenaBytes / 2, gpu.maxBindingBytes);
  const rows = Math.floor(bytes / (PROBE_COLUMNS * 4));
  const memoryProbes = [addCase(rows, PROBE_COLUMNS), headCase(1, PROBE_COLUMNS, rows, "f32")];
  const { software } = gpu.info;
  const arithmeticProbes = [
    software ? productCase(matmul, 64, SMALL, "f32") : productCase(matmul, 2048, LARGE, "f32"),
  ];
  const failures: string[] = [];
  const best = async (probes: readonly ShaderCase[], amount: (probe: ShaderCase) => number) => {
    let peak: Peak | null = null;
    for (const probe of probes) {
      const by = `${probe.kernel} ${probe.shape}`;
      const { check, time } = await measureShader(gpu, inputs, probe, options);
      if (!time) failures.push(`${by}: ${check.failure}`);
      else if (!peak || amount(probe) / time.seconds > peak.perSecond)
        peak = { perSecond: amount(probe) / time.seconds, by };
    }
    return peak;
  };
  const memory = await best(memoryProbes, (probe) => probe.readBytes + probe.writeBytes);
  const arithmetic = await best(arithmeticProbes, (probe) => probe.flops);
  return { memory, arithmetic, failures };
}
