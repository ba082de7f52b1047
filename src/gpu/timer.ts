import { NoAdapter } from "./errors.ts";
import type { Gpu } from "./gpu.ts";

/**
 * Seconds that the GPU needs for the work that `record` adds, run `repeats` times in one pass: the time of one run.
 *
 * Timestamps exist at pass boundaries only, so short work needs many repeats. Needs the feature timestamp-query.
 */
export async function timeOnGpu(gpu: Gpu, record: () => void, repeats: number): Promise<number> {
  if (!gpu.features.has("timestamp-query"))
    throw new NoAdapter(`FEATURE: the timer needs timestamp-query, which ${gpu.info.description} lacks`);
  gpu.submit();
  record();
  const recording = gpu.takeRecording();
  const { device } = gpu;
  const querySet = device.createQuerySet({ type: "timestamp", count: 2 });
  const resolved = gpu.memory.alloc(16, "tables", "timestamps");
  const range = { allocation: resolved, offset: 0, bytes: 16 };
  try {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass({
      timestampWrites: { querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 },
    });
    for (let i = 0; i < repeats; i++) recording.encode(pass);
    pass.end();
    encoder.resolveQuerySet(querySet, 0, 2, resolved.buffer, 0);
    device.queue.submit([encoder.finish()]);
    gpu.memory.afterSubmit();
    const [begin, end] = new BigUint64Array(await gpu.read(range));
    return Number(end! - begin!) / 1e9 / repeats;
  } finally {
    querySet.destroy();
    gpu.memory.free(resolved);
  }
}
