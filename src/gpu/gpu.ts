import { check } from "../check.ts";
import { type AdapterChoice, type AdapterInfo, type GpuProfile, openAdapter } from "./adapter.ts";
import { DeviceLost, GpuError, OutOfMemory } from "./errors.ts";
import { type Allocation, Memory, type Purpose } from "./memory.ts";
import { type BufferRange, Recording } from "./recording.ts";
import { type KernelSource, placeOf } from "./wgsl.ts";

export interface OpenOptions {
  /** Which adapter: see AdapterChoice. Default "auto". */
  readonly adapter?: AdapterChoice;
  /** Dawn's toggles. Default "safe". */
  readonly profile?: GpuProfile;
  /** Bytes of GPU memory that may be taken at once. Default: no limit. */
  readonly memoryBudget?: number;
  /** "portable" keeps to kernels that need no optional feature. Default "auto". */
  readonly kernels?: "auto" | "portable";
  /** "default" keeps WebGPU's guaranteed limits instead of the adapter's own. For tests. */
  readonly limits?: "adapter" | "default";
  /** Dawn's null backend: for fault tests alone, it computes nothing. */
  readonly backend?: "null";
}

/** A compute pipeline and the layout its bind groups have. */
export interface CompiledKernel {
  readonly id: number;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

/** Asked for where the adapter has them; which kernels run depends on it. */
const WANTED_FEATURES = ["shader-f16", "subgroups", "timestamp-query"];

/** WebGPU gives the guaranteed minimum unless a limit is asked for by name; these are the ones that bound us. */
const WANTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

/** Params buffers and bind groups that are kept for the next step; a decode step of 48 layers needs under 1,000. */
const MAX_CACHED = 4096;

/**
 * One adapter and device, its queue, its memory ledger and its late errors.
 *
 * Ops add dispatches to the recording in progress; `submit` runs it, `read` runs it and copies a result out. WebGPU
 * reports errors late: every one is kept and thrown by the next submit, read or settle.
 */
export class Gpu {
  readonly info: AdapterInfo;
  readonly device: GPUDevice;
  readonly memory: Memory;
  readonly limits: GPUSupportedLimits;
  readonly features: ReadonlySet<string>;
  readonly kernels: "auto" | "portable";
  /** What the adapter could give, where the device was opened with less. */
  private readonly adapterLimits: GPUSupportedLimits;
  /** Dawn crashes when its instance is collected before the device, and Node never exits while it is held. */
  instance: GPU | undefined;
  private recording = new Recording();
  private readonly pipelines = new Map<string, CompiledKernel>();
  private readonly uniforms = new Map<string, Allocation>();
  private readonly bindGroups = new Map<string, GPUBindGroup>();
  private readonly bindGroupsOf = new Map<number, Set<string>>();
  private readonly pending = new Set<Promise<void>>();
  private failure: Error | undefined;
  private lost: Promise<unknown>;
  private closed = false;
  private dispatched = 0;

  /** Open an adapter and a device. Throws NoAdapter when there is none that fits. */
  static async open(options: OpenOptions = {}): Promise<Gpu> {
    const opened = await openAdapter(options.adapter ?? "auto", options.profile ?? "safe", options.backend);
    const { adapter } = opened;
    const requiredLimits: Record<string, number> = {};
    if (options.limits !== "default")
      for (const name of WANTED_LIMITS) requiredLimits[name] = adapter.limits[name];
    const device = await adapter.requestDevice({
      requiredFeatures: WANTED_FEATURES.filter((f) => adapter.features.has(f)) as GPUFeatureName[],
      requiredLimits,
    });
    return new Gpu(opened.instance, device, opened.info, adapter.limits, options);
  }

  private constructor(
    instance: GPU,
    device: GPUDevice,
    info: AdapterInfo,
    adapterLimits: GPUSupportedLimits,
    options: OpenOptions,
  ) {
    this.instance = instance;
    this.device = device;
    this.info = info;
    this.adapterLimits = adapterLimits;
    this.limits = device.limits;
    this.features = device.features as ReadonlySet<string>;
    this.kernels = options.kernels ?? "auto";
    this.memory = new Memory(
      (bytes, purpose, label) => this.createBuffer(bytes, purpose, label),
      options.memoryBudget,
    );
    this.memory.onDestroy((a) => this.forgetBindGroups(a));
    device.onuncapturederror = (event) => {
      this.failure ??= new GpuError(`WebGPU: ${event.error.message}`);
    };
    this.lost = device.lost.then((reason) => {
      if (!this.closed)
        this.failure = new DeviceLost(`DEVICE_LOST: ${reason.message || reason.reason}; open the GPU again`);
    });
  }

  /** May kernels use `feature`? False for every optional one under `kernels: "portable"`. */
  canUse(feature: string): boolean {
    return this.kernels !== "portable" && this.features.has(feature);
  }

  /** Kernel launches since the device was opened. */
  get dispatchCount(): number {
    return this.dispatched;
  }

  // ---- work ----------------------------------------------------------------------------------------------------

  /** Compile a kernel once for each choice of constants. Errors come at the next submit, read or settle. */
  compile(source: KernelSource, key: string, constants: Readonly<Record<string, number>>): CompiledKernel {
    const known = this.pipelines.get(key);
    if (known) return known;
    this.throwIfFailed();
    for (const feature of source.features)
      check(
        this.features.has(feature),
        `FEATURE: kernel ${source.name} needs ${feature}, which ${this.info.description} lacks`,
      );
    const layout = this.device.createBindGroupLayout({
      label: source.name,
      entries: source.bindings.map((b) => ({
        binding: b.index,
        visibility: 4, // GPUShaderStage.COMPUTE
        buffer: {
          type: b.access === "uniform" ? "uniform" : b.access === "read" ? "read-only-storage" : "storage",
        },
      })),
    });
    this.device.pushErrorScope("validation");
    const module = this.device.createShaderModule({ label: source.name, code: source.code });
    const pipeline = this.device.createComputePipeline({
      label: source.name,
      layout: this.device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: "main", constants: { ...constants } },
    });
    this.expectNoError(this.device.popErrorScope(), async (error) => {
      const info = await module.getCompilationInfo();
      const lines = info.messages
        .filter((m) => m.type === "error")
        .map((m) => `${placeOf(source, m.lineNum)}: ${m.message}`);
      return new GpuError(lines.join("\n") || `kernel ${source.name}: ${error.message}`);
    });
    const compiled = { id: this.pipelines.size, pipeline, layout };
    this.pipelines.set(key, compiled);
    return compiled;
  }

  /** Add one dispatch to the recording. `ranges` are in binding order, after the params. */
  dispatch(
    label: string,
    kernel: CompiledKernel,
    params: ArrayBuffer | undefined,
    ranges: readonly BufferRange[],
    workgroups: readonly [number, number, number],
  ): void {
    const max = this.limits.maxComputeWorkgroupsPerDimension;
    for (const count of workgroups)
      check(
        count >= 1 && count <= max,
        () => `${label}: dispatch of [${workgroups}] workgroups; each must be 1 to ${max}`,
      );
    const all = params ? [this.uniform(params), ...ranges] : ranges;
    for (const { allocation: a } of all) {
      check(a.state === "live", () => `${label}: uses ${a.label}, which was freed`);
      a.lastUse = this.memory.recordingNumber;
    }
    this.recording.add({
      label,
      pipeline: kernel.pipeline,
      bindGroup: this.bindGroup(kernel, all),
      workgroups,
    });
    this.dispatched++;
  }

  /** Run what was recorded. Throws errors that came in since the last call; those of this work come later. */
  submit(): void {
    this.throwIfFailed();
    if (this.recording.dispatches.length === 0) return;
    const encoder = this.device.createCommandEncoder();
    this.encodeRecording(encoder);
    this.device.queue.submit([encoder.finish()]);
    this.memory.afterSubmit();
  }

  /** Take the recording in progress away, to run it elsewhere (the timer does). Its buffers stay as they are. */
  takeRecording(): Recording {
    const taken = this.recording;
    this.recording = new Recording();
    return taken;
  }

  /** Run what was recorded, wait, and return `bytes` bytes of `range` from `offset`. */
  async read(range: BufferRange, offset = 0, bytes = range.bytes - offset): Promise<ArrayBuffer> {
    this.throwIfFailed();
    check(
      offset % 4 === 0 && bytes > 0 && offset + bytes <= range.bytes,
      `read: [${offset}, ${offset + bytes}) of ${range.bytes} bytes`,
    );
    const size = Math.ceil(bytes / 4) * 4;
    const staging = this.memory.alloc(size, "staging", "read back");
    try {
      const encoder = this.device.createCommandEncoder();
      this.encodeRecording(encoder);
      encoder.copyBufferToBuffer(range.allocation.buffer, range.offset + offset, staging.buffer, 0, size);
      this.device.queue.submit([encoder.finish()]);
      staging.lastUse = this.memory.recordingNumber;
      this.memory.afterSubmit();
      await this.settle();
      await this.orLost(staging.buffer.mapAsync(1, 0, size)); // GPUMapMode.READ
      this.throwIfFailed();
      const copy = staging.buffer.getMappedRange(0, size).slice(0, bytes);
      staging.buffer.unmap();
      return copy;
    } finally {
      if (staging.state === "live") this.memory.free(staging);
    }
  }

  /** Write into a range. Recorded work that uses its buffer is submitted first, since queue writes overtake it. */
  write(range: BufferRange, data: ArrayBuffer | ArrayBufferView, offset = 0): void {
    this.throwIfFailed();
    const bytes = data.byteLength;
    check(
      offset + bytes <= range.bytes,
      `write: ${bytes} bytes at ${offset} into ${range.allocation.label} of ${range.bytes} bytes`,
    );
    check(range.allocation.state === "live", `write: ${range.allocation.label} was freed`);
    if (range.allocation.lastUse === this.memory.recordingNumber) this.submit();
    const view = ArrayBuffer.isView(data) ? data : new Uint8Array(data);
    this.device.queue.writeBuffer(
      range.allocation.buffer,
      range.offset + offset,
      view.buffer as ArrayBuffer,
      view.byteOffset,
      view.byteLength,
    );
  }

  /** Wait until everything submitted is done, and throw what went wrong. */
  async finish(): Promise<void> {
    this.submit();
    await this.orLost(this.device.queue.onSubmittedWorkDone());
    await this.settle();
  }

  /** Wait for the verdict on every buffer and pipeline made so far; throw the first error. */
  async settle(): Promise<void> {
    if (this.pending.size > 0) await Promise.all(this.pending);
    this.throwIfFailed();
  }

  /** Destroy everything. The ledger is zero afterwards, and nothing keeps the process alive. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    this.recording = new Recording();
    this.bindGroups.clear();
    this.uniforms.clear();
    this.pipelines.clear();
    this.memory.destroyAll();
    this.device.destroy();
    await this.device.lost;
    this.instance = undefined;
  }

  // ---- errors --------------------------------------------------------------------------------------------------

  private throwIfFailed(): void {
    check(!this.closed, "this Gpu is closed");
    if (this.failure) throw this.failure;
  }

  /** Keep the verdict of an error scope: it is thrown by the next submit, read or settle. */
  private expectNoError(
    scope: Promise<GPUError | null>,
    explain: (error: GPUError) => Error | Promise<Error>,
  ): void {
    const verdict: Promise<void> = scope
      .then(async (error) => {
        if (error) this.failure ??= await explain(error);
      })
      .catch(async () => {
        // A scope is only rejected when its device is gone; wait until `lost` has said so.
        await this.lost;
      })
      .finally(() => this.pending.delete(verdict));
    this.pending.add(verdict);
  }

  /** A promise of the device, or DeviceLost when the device goes first. */
  private async orLost<T>(promise: Promise<T>): Promise<T> {
    try {
      return await promise;
    } catch (error) {
      await Promise.race([this.lost, new Promise((resolve) => setTimeout(resolve, 100))]);
      throw this.failure ?? new GpuError(`WebGPU: ${(error as Error).message}`);
    }
  }

  // ---- buffers -------------------------------------------------------------------------------------------------

  /** The largest piece of one buffer that a kernel can be given, in bytes. */
  get maxBindingBytes(): number {
    return Math.min(this.limits.maxStorageBufferBindingSize, this.limits.maxBufferSize);
  }

  private createBuffer(bytes: number, purpose: Purpose, label: string): GPUBuffer {
    this.throwIfFailed();
    const allowed = this.maxBindingBytes;
    if (bytes > allowed) {
      const offered = Math.min(
        this.adapterLimits.maxStorageBufferBindingSize,
        this.adapterLimits.maxBufferSize,
      );
      throw new OutOfMemory(
        `LIMIT: ${label} needs a ${bytes}-byte binding, device allows ${allowed} (adapter offers ${offered})`,
      );
    }
    const refusal = this.memory.refusal(bytes, purpose, label, "the device has no more");
    this.device.pushErrorScope("out-of-memory");
    this.device.pushErrorScope("validation");
    const { MAP_READ, COPY_DST, COPY_SRC, STORAGE, UNIFORM, QUERY_RESOLVE } = GPUBufferUsage;
    const usage =
      purpose === "staging"
        ? MAP_READ | COPY_DST
        : STORAGE | COPY_DST | COPY_SRC | (purpose === "tables" ? UNIFORM | QUERY_RESOLVE : 0);
    const buffer = this.device.createBuffer({ label, size: bytes, usage });
    this.expectNoError(
      this.device.popErrorScope(),
      (e) => new GpuError(`buffer ${label} (${bytes} bytes): ${e.message}`),
    );
    this.expectNoError(this.device.popErrorScope(), () => new OutOfMemory(refusal));
    return buffer;
  }

  /** Params as a buffer that is written once and never again: equal params share it, so no write can overtake work. */
  private uniform(params: ArrayBuffer): BufferRange {
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

  private evictUniform(): void {
    const [key, oldest] = this.uniforms.entries().next().value!;
    this.uniforms.delete(key);
    this.memory.free(oldest);
  }

  private bindGroup(kernel: CompiledKernel, ranges: readonly BufferRange[]): GPUBindGroup {
    const key = `${kernel.id}|${ranges.map((r) => `${r.allocation.id}+${r.offset}:${r.bytes}`).join()}`;
    const known = this.bindGroups.get(key);
    if (known) return known;
    const group = this.device.createBindGroup({
      layout: kernel.layout,
      entries: ranges.map((r, binding) => ({
        binding,
        resource: { buffer: r.allocation.buffer, offset: r.offset, size: r.bytes },
      })),
    });
    if (this.bindGroups.size >= MAX_CACHED) this.bindGroups.clear();
    this.bindGroups.set(key, group);
    for (const r of ranges) {
      const keys = this.bindGroupsOf.get(r.allocation.id);
      if (keys) keys.add(key);
      else this.bindGroupsOf.set(r.allocation.id, new Set([key]));
    }
    return group;
  }

  private forgetBindGroups(a: Allocation): void {
    for (const key of this.bindGroupsOf.get(a.id) ?? []) this.bindGroups.delete(key);
    this.bindGroupsOf.delete(a.id);
  }

  private encodeRecording(encoder: GPUCommandEncoder): void {
    if (this.recording.dispatches.length === 0) return;
    const pass = encoder.beginComputePass();
    this.recording.encode(pass);
    pass.end();
    this.recording = new Recording();
  }
}
