import type { Allocation } from "./memory.ts";

/** A piece of GPU memory: what kernels are given. A Tensor is one. */
export interface BufferRange {
  readonly allocation: Allocation;
  /** Byte offset in the buffer, a multiple of 256. */
  readonly offset: number;
  /** Bytes that a kernel may see. */
  readonly bytes: number;
  /** What its elements are, where they are known: a kernel that declares another type refuses the range. */
  readonly dtype?: "f32" | "f16" | "u32";
  /** True when its owner gave it back; the allocation may be another's by then. */
  readonly isFreed?: boolean;
}

/** One kernel launch with everything resolved. */
export interface Dispatch {
  readonly label: string;
  readonly pipeline: GPUComputePipeline;
  readonly bindGroup: GPUBindGroup;
  readonly workgroups: readonly [number, number, number];
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
      pass.dispatchWorkgroups(...d.workgroups);
    }
  }
}
