import { GpuError } from "./errors.ts";
import type { LateErrors } from "./late-errors.ts";
import type { Purpose } from "./memory.ts";

/**
 * A GPUBuffer with the usage that its purpose needs. That the device has no room, or refuses, comes late: what `refused`
 * makes of it, or GpuError, at the next submit, read or settle.
 */
export function createBuffer(
  device: GPUDevice,
  errors: LateErrors,
  bytes: number,
  purpose: Purpose,
  label: string,
  refused: (buffer: GPUBuffer) => Error,
): GPUBuffer {
  const { MAP_READ, COPY_DST, COPY_SRC, STORAGE, UNIFORM, QUERY_RESOLVE } = GPUBufferUsage;
  const usage =
    purpose === "staging"
      ? MAP_READ | COPY_DST
      : STORAGE | COPY_DST | COPY_SRC | (purpose === "tables" ? UNIFORM | QUERY_RESOLVE : 0);
  device.pushErrorScope("out-of-memory");
  device.pushErrorScope("validation");
  const buffer = device.createBuffer({ label, size: bytes, usage });
  errors.expectNone(
    device.popErrorScope(),
    (e) => new GpuError(`buffer ${label} (${bytes} bytes): ${e.message}`),
  );
  errors.expectNone(device.popErrorScope(), () => refused(buffer));
  return buffer;
}
