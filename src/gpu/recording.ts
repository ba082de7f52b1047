import { check } from "../check.ts";
import type { Allocation, Memory } from "./memory.ts";

/** A piece of GPU memory: what kernels are given. A Tensor is one. */
export interface BufferRange {
  readonly allocation: Allocation;
  /** Byte offset in the buffer, a multiple of 256. */
  readonly offset: number;
  /** Bytes that a kernel may see. */
  readonly bytes: number;
  /** What its elements are, where they are known: a kernel that declares another type refuses the range. */
  readonly dtype?: "f32" | "f16" | "i8" | "u32";
  /** True when its owner gave it back; the allocation may be another's by then. */
  readonly isFreed?: boolean;
}

/** A tensor may be freed although its buffer lives on, as another's. */
export function isLive({ isFreed, allocation }: BufferRange): boolean {
  return !isFreed && allocation.state === "live";
}

/** What a launch has to move and to compute at least: for the profile. */
export interface Work {
  /** In words, such as "1×768×2304". */
  readonly shape: string;
  /** Bytes of inputs and outputs, each counted once. */
  readonly bytes: number;
  readonly flops: number;
}

/** One kernel launch with everything resolved. */
export interface Dispatch {
  readonly label: string;
  /** The part of the model that it belongs to, such as "layer 0"; empty where nobody said. */
  readonly stage: string;
  readonly pipeline: GPUComputePipeline;
  readonly bindGroup: GPUBindGroup;
  readonly workgroups: readonly [number, number, number];
  /** The buffers behind its bindings. */
  readonly allocations: readonly Allocation[];
  readonly work?: () => Work;
}

/** The dispatches of a step, in order. They run in one compute pass, where each sees what the ones before it wrote. */
export class Recording {
  readonly dispatches: Dispatch[] = [];

  add(dispatch: Dispatch): void {
    this.dispatches.push(dispatch);
  }

  /** Encode into a pass; pipelines and bind groups that stay the same are set once. */
  encode(pass: GPUComputePassEncoder): void {
    let pipeline: GPUComputePipeline | undefined;
    let bindGroup: GPUBindGroup | undefined;
    for (const d of this.dispatches) {
      if (d.pipeline !== pipeline) pass.setPipeline(d.pipeline);
      if (d.bindGroup !== bindGroup) pass.setBindGroup(0, d.bindGroup);
      pipeline = d.pipeline;
      bindGroup = d.bindGroup;
      dispatch(pass, d.workgroups);
    }
  }
}

/** What is left out is 1. The binding for Node then has less to convert: 3 % of the time to encode a step. */
function dispatch(pass: GPUComputePassEncoder, [x, y, z]: Dispatch["workgroups"]): void {
  if (z > 1) pass.dispatchWorkgroups(x, y, z);
  else if (y > 1) pass.dispatchWorkgroups(x, y);
  else pass.dispatchWorkgroups(x);
}

/**
 * A recording that is run again and again. Its buffers are pinned: whoever frees them, they stay as they are, and nobody
 * else gets them, until the recording is freed. Weights and caches that it uses must outlive it.
 */
export class ReplayableRecording {
  readonly recording: Recording;
  private readonly memory: Memory;
  private readonly pinned: readonly Allocation[];
  private freed = false;

  constructor(recording: Recording, memory: Memory) {
    this.recording = recording;
    this.memory = memory;
    this.pinned = [...new Set(recording.dispatches.flatMap((d) => d.allocations))];
    for (const allocation of this.pinned) memory.pin(allocation);
  }

  get dispatches(): readonly Dispatch[] {
    return this.recording.dispatches;
  }

  encode(pass: GPUComputePassEncoder): void {
    this.recording.encode(pass);
  }

  /** False once it was freed, or when a buffer that it uses is gone. */
  get isLive(): boolean {
    return !this.freed && this.pinned.every((a) => a.state === "live" || a.state === "held");
  }

  /** Let go of its buffers. */
  free(): void {
    check(!this.freed, "recording: freed twice");
    this.freed = true;
    for (const allocation of this.pinned) this.memory.unpin(allocation);
  }
}
