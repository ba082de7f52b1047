import type { Gpu } from "../gpu/gpu.ts";
import { checkTimer, timeEachDispatch, timeOnHost, timeRecording } from "../gpu/timer.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import { add } from "../ops/add.ts";
import { Tensor } from "../tensor.ts";
import { median } from "./measure.ts";
import { measurePeaks } from "./peaks.ts";
import { type MeasuredStep, type ProfileResults, profiledStep } from "./profile-results.ts";
import { checkStepLengths, type RecordedStep, type StepOptions, withStep } from "./profile-steps.ts";
import { ShaderInputs } from "./shader-inputs.ts";
import { timeKernel } from "./time-kernel.ts";

// One decode and one prefill step, dispatch by dispatch, beside what the machine can do at most.

export interface ProfileOptions extends StepOptions {
  /** Runs of each measurement. */
  readonly repeat: number;
  readonly signal?: AbortSignal;
  /** Called before each part. */
  readonly onProgress?: (done: number, total: number, name: string) => void;
}

/** Random numbers for the peaks' probes: more than a GPU's caches hold; for a CPU what it gets through. */
const ARENA_BYTES = { gpu: 256 * 2 ** 20, software: 8 * 2 ** 20 };

/** Passes of a probe; the median counts. */
const PROBE_PASSES = 5;

/** Runs before the measured ones: they bring weights and pipelines to where they will be. */
const WARM_UP = 3;

/**
 * Profile both steps. Throws NoAdapter without timestamp-query, BadInput when a step does not fit the model's context,
 * OutOfMemory; the signal's reason between two parts.
 */
export async function profileModel(
  model: Gpt2,
  options: ProfileOptions,
): Promise<Pick<ProfileResults, "peaks" | "emptyDispatchSeconds" | "steps">> {
  const { gpu } = model;
  checkTimer(gpu);
  checkStepLengths(model, options);
  const parts = ["peaks", "decode", "prefill"] as const;
  const begin = (part: (typeof parts)[number]) => {
    options.signal?.throwIfAborted();
    options.onProgress?.(parts.indexOf(part), parts.length, part);
  };
  begin("peaks");
  const peaks = await peaksOf(gpu);
  const emptyDispatchSeconds = await emptyDispatch(gpu);
  const steps: ProfileResults["steps"] = [];
  for (const name of ["decode", "prefill"] as const) {
    begin(name);
    const measured = await withStep(model, name, options, (step) => measureStep(gpu, step, options.repeat));
    steps.push(profiledStep(measured, peaks, emptyDispatchSeconds));
  }
  options.onProgress?.(parts.length, parts.length, "done");
  return { peaks, emptyDispatchSeconds, steps };
}

async function measureStep(gpu: Gpu, step: RecordedStep, repeat: number): Promise<MeasuredStep> {
  const { recording, name, contextLength, newTokens } = step;
  const onGpu: number[] = [];
  const onHost: number[] = [];
  // In turn, so that a machine that slows down slows both.
  for (let i = -WARM_UP; i < repeat; i++) {
    step.reset();
    const gpuSeconds = await timeRecording(gpu, recording, 1);
    step.reset();
    const hostSeconds = await timeOnHost(gpu, recording);
    if (i < 0) continue;
    onGpu.push(gpuSeconds);
    onHost.push(hostSeconds);
  }
  const dispatches = await timeEachDispatch(gpu, recording, repeat, () => step.reset());
  return {
    name,
    contextLength,
    newTokens,
    gpuSeconds: median(onGpu),
    hostSeconds: median(onHost),
    dispatches: recording.dispatches.map((dispatch, i) => {
      const work = step.work(dispatch);
      return {
        kernel: dispatch.label,
        stage: dispatch.stage,
        shape: work?.shape ?? `${dispatch.workgroups.join("×")} workgroups`,
        workgroups: [...dispatch.workgroups] as [number, number, number],
        beginSeconds: dispatches[i]!.begin,
        seconds: dispatches[i]!.seconds,
        work: work ? { bytes: work.bytes, flops: work.flops } : null,
      };
    }),
  };
}

async function peaksOf(gpu: Gpu): Promise<ProfileResults["peaks"]> {
  const bytes = ARENA_BYTES[gpu.info.software ? "software" : "gpu"];
  const inputs = new ShaderInputs(gpu, bytes);
  try {
    const options = { passes: PROBE_PASSES, rotateBytes: gpu.info.software ? 0 : bytes };
    const { memory, arithmetic, failures } = await measurePeaks(gpu, inputs, bytes, options);
    return { memory, arithmetic, failures: [...failures] };
  } finally {
    inputs.free();
  }
}

/** Seconds of the smallest dispatch that waits for the one before it: in a chain of additions of four numbers. */
async function emptyDispatch(gpu: Gpu): Promise<number> {
  const x = Tensor.from(gpu, [1, 4], [0, 0, 0, 0]);
  try {
    const chain = () => {
      const first = add(x, x);
      add(first, x).free();
      first.free();
    };
    // The fastest pass: whatever slows one down is no part of a dispatch.
    return Math.min(...(await timeKernel(gpu, chain, 2, PROBE_PASSES)).passes);
  } finally {
    x.free();
  }
}
