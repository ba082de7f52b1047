import { check } from "../check.ts";
import type { Gpu } from "./gpu.ts";
import type { ReadTarget } from "./read-back.ts";
import type { BufferRange, ReplayableRecording } from "./recording.ts";

/** Runs of a recording, encoded and not yet submitted, and where their result will be. */
export interface PreparedRun {
  readonly commands: GPUCommandBuffer;
  readonly target: ReadTarget;
}

/**
 * Encode `times` runs of a recording in one compute pass, and a copy of `bytes` bytes of `range` from `offset` on after
 * them. Nothing runs yet, so a host that waits for the GPU can encode its next step meanwhile.
 */
export function prepareRun(
  gpu: Gpu,
  recording: ReplayableRecording,
  times: number,
  range: BufferRange,
  offset: number,
  bytes: number,
): PreparedRun {
  check(recording.isLive, "replay: the recording was freed, or a buffer that it uses is gone");
  const target = gpu.readBack.target(bytes);
  const encoder = gpu.device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  for (let i = 0; i < times; i++) recording.encode(pass);
  pass.end();
  gpu.readBack.copy(encoder, range, offset, target);
  gpu.countDispatches(times * recording.dispatches.length);
  return { commands: encoder.finish(), target };
}

/** Submit a prepared run, after what was recorded before. The promise gives the copied bytes, and late errors; what
 * is known to have failed already is thrown, and the run dropped. */
export function submitRun(gpu: Gpu, run: PreparedRun): Promise<ArrayBuffer> {
  const { commands, target } = run;
  try {
    gpu.submit();
  } catch (error) {
    dropRun(gpu, run);
    throw error;
  }
  gpu.device.queue.submit([commands]);
  target.staging.lastUse = gpu.memory.recordingNumber;
  gpu.memory.afterSubmit();
  return gpu.readBack.result(target);
}

/** Give up a prepared run. */
export function dropRun(gpu: Gpu, { target }: PreparedRun): void {
  // The copy into it will never run, so nothing has to wait for it.
  target.staging.lastUse = 0;
  gpu.readBack.drop(target);
}
