import type { LateErrors } from "./late-errors.ts";
import type { Allocation, Memory } from "./memory.ts";
import type { BufferRange } from "./recording.ts";

/** A staging buffer that a result is copied to. */
export interface ReadTarget {
  readonly staging: Allocation;
  /** Bytes of the result. */
  readonly bytes: number;
}

/** Brings results to the host: a copy into a staging buffer, which is mapped when the GPU has filled it. */
export class ReadBack {
  private readonly memory: Memory;
  private readonly errors: LateErrors;
  private readonly settle: () => Promise<void>;

  /** `settle` waits for late errors and throws the first. */
  constructor(memory: Memory, errors: LateErrors, settle: () => Promise<void>) {
    this.memory = memory;
    this.errors = errors;
    this.settle = settle;
  }

  /** A staging buffer for `bytes` bytes. Throws OutOfMemory. */
  target(bytes: number): ReadTarget {
    return { staging: this.memory.alloc(Math.ceil(bytes / 4) * 4, "staging", "read back"), bytes };
  }

  /** Encode the copy of the range's bytes from `offset` on. */
  copy(encoder: GPUCommandEncoder, range: BufferRange, offset: number, { staging, bytes }: ReadTarget): void {
    const size = Math.ceil(bytes / 4) * 4;
    encoder.copyBufferToBuffer(range.allocation.buffer, range.offset + offset, staging.buffer, 0, size);
    staging.lastUse = this.memory.recordingNumber;
  }

  /** What the copy brought, once the GPU has come so far; the staging buffer is given back. Throws late errors. */
  async result({ staging, bytes }: ReadTarget): Promise<ArrayBuffer> {
    const size = Math.ceil(bytes / 4) * 4;
    try {
      await this.settle();
      await this.errors.orLost(staging.buffer.mapAsync(1, 0, size)); // GPUMapMode.READ
      this.errors.throwIfFailed();
      return staging.buffer.getMappedRange(0, size).slice(0, bytes);
    } finally {
      // Also when something else failed meanwhile: the next one to get this buffer needs it unmapped.
      if (!this.errors.isLost && staging.buffer.mapState !== "unmapped") staging.buffer.unmap();
      this.drop({ staging, bytes });
    }
  }

  /** Give a target back that nothing will be copied to. */
  drop({ staging }: ReadTarget): void {
    if (staging.state === "live") this.memory.free(staging);
  }
}
