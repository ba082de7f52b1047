import type { Gpu } from "../gpu/gpu.ts";
import type { BufferRange } from "../gpu/recording.ts";
import { rowStride } from "../tensor.ts";
import type { RaggedSample } from "./ragged-batch.ts";

/** A sample's number, and its logits [V]. */
export type LogitsRow = readonly [number, Float32Array];

/**
 * Bring the logits of those samples to the host that want them, from `logits` [samples, V] f32: a copy for each run of neighbours.
 * They are submitted before this returns, so that no step after it can overwrite what they read.
 */
export function readLogits(
  gpu: Gpu,
  logits: BufferRange,
  samples: readonly RaggedSample[],
  vocabSize: number,
): Promise<LogitsRow[]>[] {
  const stride = 4 * rowStride(vocabSize);
  const reads: Promise<LogitsRow[]>[] = [];
  for (let end = 0; end < samples.length; end++) {
    const start = end;
    while (samples[end]?.wantsLogits) end++;
    const count = end - start;
    if (count === 0) continue;
    const read = gpu.read(logits, stride * start, stride * count);
    reads.push(
      read.then((bytes) =>
        Array.from({ length: count }, (_, i) => [start + i, new Float32Array(bytes, stride * i, vocabSize)]),
      ),
    );
  }
  return reads;
}
