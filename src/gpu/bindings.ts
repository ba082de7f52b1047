import type { Allocation, Memory } from "./memory.ts";
import type { CompiledKernel } from "./pipelines.ts";
import type { BufferRange } from "./recording.ts";

/** Params buffers and bind groups that are kept for the next step; a decode step of 48 layers needs under 1,000. */
const MAX_CACHED = 4096;

interface CachedGroup {
  readonly group: GPUBindGroup;
  readonly allocations: readonly Allocation[];
}

/** Params and bind groups, kept from one step to the next: most steps bind the same buffers to the same kernels. */
export class Bindings {
  private readonly device: GPUDevice;
  private readonly memory: Memory;
  private readonly write: (range: BufferRange, data: ArrayBuffer) => void;
  private readonly uniforms = new Map<string, Allocation>();
  private readonly groups = new Map<string, CachedGroup>();
  /** Which groups go when a buffer goes. */
  private readonly keysOf = new Map<Allocation, Set<string>>();

  constructor(device: GPUDevice, memory: Memory, write: Bindings["write"]) {
    this.device = device;
    this.memory = memory;
    this.write = write;
    memory.onDestroy((a) => this.forget(a));
  }

  /** Params as a buffer that is written once and never again: equal params share it, so no write can overtake work. */
  uniform(params: ArrayBuffer): BufferRange {
    const key = new Uint32Array(params).join();
    let allocation = this.uniforms.get(key);
    if (allocation) this.uniforms.delete(key);
    else {
      if (this.uniforms.size >= MAX_CACHED) this.evictUniform();
      allocation = this.memory.alloc(params.byteLength, "tables", "params");
      this.write({ allocation, offset: 0, bytes: params.byteLength }, params);
    }
    this.uniforms.set(key, allocation); // last in the map's order: the most recently used
    return { allocation, offset: 0, bytes: params.byteLength };
  }

  /** Give all params buffers back to the pool. */
  freeUniforms(): void {
    for (const allocation of this.uniforms.values()) this.memory.free(allocation);
    this.uniforms.clear();
  }

  /** The bind group of `ranges`, in binding order, for this kernel. */
  group(kernel: CompiledKernel, ranges: readonly BufferRange[]): GPUBindGroup {
    const key = `${kernel.id}|${ranges.map((r) => `${r.allocation.id}+${r.offset}:${r.bytes}`).join()}`;
    const known = this.groups.get(key);
    if (known) return known.group;
    const group = this.device.createBindGroup({
      layout: kernel.layout,
      entries: ranges.map((r, binding) => ({
        binding,
        resource: { buffer: r.allocation.buffer, offset: r.offset, size: r.bytes },
      })),
    });
    if (this.groups.size >= MAX_CACHED) this.clearGroups();
    const allocations = ranges.map((r) => r.allocation);
    this.groups.set(key, { group, allocations });
    for (const a of allocations) {
      const keys = this.keysOf.get(a);
      if (keys) keys.add(key);
      else this.keysOf.set(a, new Set([key]));
    }
    return group;
  }

  clear(): void {
    this.clearGroups();
    this.uniforms.clear();
  }

  /** Drop every group that binds `a`, which is about to go, and every trace of them: weights see many of them. */
  private forget(a: Allocation): void {
    for (const key of this.keysOf.get(a) ?? []) {
      for (const other of this.groups.get(key)!.allocations)
        if (other !== a) this.keysOf.get(other)?.delete(key);
      this.groups.delete(key);
    }
    this.keysOf.delete(a);
  }

  private clearGroups(): void {
    this.groups.clear();
    this.keysOf.clear();
  }

  private evictUniform(): void {
    const [key, oldest] = this.uniforms.entries().next().value!;
    this.uniforms.delete(key);
    this.memory.free(oldest);
  }
}
