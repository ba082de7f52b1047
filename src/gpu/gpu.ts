import { check } from "../check.ts";
import { type AdapterChoice, type AdapterInfo, type GpuProfile, openAdapter } from "./adapter.ts";
import { Bindings } from "./bindings.ts";
import { GpuError, OutOfMemory } from "./errors.ts";
import { LateErrors } from "./late-errors.ts";
import { Memory, type Purpose } from "./memory.ts";
import { type CompiledKernel, Pipelines } from "./pipelines.ts";
import { type BufferRange, Recording } from "./recording.ts";
import type { KernelSource } from "./wgsl.ts";

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
  /** Sizes of kernels for a GPU, or for a CPU that plays GPU. Default: what the adapter is. For tests of the other. */
  readonly forms?: "gpu" | "software";
  /** Dawn's null backend: for fault tests alone, it computes nothing. */
  readonly backend?: "null";
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
  /** Whom the sizes of kernels are made for: a GPU has loads to hide, a CPU pays for barriers. */
  readonly forms: "gpu" | "software";
  /** What the adapter could give, where the device was opened with less. */
  private readonly adapterLimits: GPUSupportedLimits;
  /** Dawn crashes when its instance is collected before the device, and Node never exits while it is held. */
  instance: GPU | undefined;
  private recording = new Recording();
  private readonly pipelines: Pipelines;
  private readonly bindings: Bindings;
  private readonly errors: LateErrors;
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
    this.forms = options.forms ?? (info.software ? "software" : "gpu");
    this.memory = new Memory(
      (bytes, purpose, label) => this.createBuffer(bytes, purpose, label),
      options.memoryBudget,
    );
    this.bindings = new Bindings(device, this.memory, (range, data) => this.write(range, data));
    this.errors = new LateErrors(device);
    this.pipelines = new Pipelines(device, this.errors, info.description);
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
    return this.pipelines.compile(source, key, constants);
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
    const all = params ? [this.bindings.uniform(params), ...ranges] : ranges;
    for (const range of all) {
      check(isLive(range), () => `${label}: uses ${range.allocation.label}, which was freed`);
      range.allocation.lastUse = this.memory.recordingNumber;
    }
    this.recording.add({
      label,
      pipeline: kernel.pipeline,
      bindGroup: this.bindings.group(kernel, all),
      workgroups,
    });
    this.dispatched++;
  }

  /** Run what was recorded. Throws errors that came in since the last call; those of this work come later. */
  submit(): void {
    this.errors.throwIfFailed();
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
    this.errors.throwIfFailed();
    check(isLive(range), () => `read: ${range.allocation.label} was freed`);
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
      await this.errors.orLost(staging.buffer.mapAsync(1, 0, size)); // GPUMapMode.READ
      this.errors.throwIfFailed();
      const copy = staging.buffer.getMappedRange(0, size).slice(0, bytes);
      staging.buffer.unmap();
      return copy;
    } finally {
      if (staging.state === "live") this.memory.free(staging);
    }
  }

  /** Write into a range. Recorded work that uses its buffer is submitted first, since queue writes overtake it. */
  write(range: BufferRange, data: ArrayBuffer | ArrayBufferView, offset = 0): void {
    this.errors.throwIfFailed();
    const bytes = data.byteLength;
    check(
      offset + bytes <= range.bytes,
      `write: ${bytes} bytes at ${offset} into ${range.allocation.label} of ${range.bytes} bytes`,
    );
    check(isLive(range), () => `write: ${range.allocation.label} was freed`);
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
    await this.errors.orLost(this.device.queue.onSubmittedWorkDone());
    await this.settle();
  }

  /** Wait for the verdict on every buffer and pipeline made so far; throw the first error. */
  async settle(): Promise<void> {
    await this.errors.settle();
  }

  /** Destroy everything. The ledger is zero afterwards, and nothing keeps the process alive. */
  async close(): Promise<void> {
    if (!this.errors.close()) return;
    this.recording = new Recording();
    this.bindings.clear();
    this.pipelines.clear();
    this.memory.destroyAll();
    this.device.destroy();
    await this.device.lost;
    this.instance = undefined;
  }

  // ---- buffers -------------------------------------------------------------------------------------------------

  /** The largest piece of one buffer that a kernel can be given, in bytes. */
  get maxBindingBytes(): number {
    return Math.min(this.limits.maxStorageBufferBindingSize, this.limits.maxBufferSize);
  }

  private createBuffer(bytes: number, purpose: Purpose, label: string): GPUBuffer {
    this.errors.throwIfFailed();
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
    this.errors.expectNone(
      this.device.popErrorScope(),
      (e) => new GpuError(`buffer ${label} (${bytes} bytes): ${e.message}`),
    );
    this.errors.expectNone(this.device.popErrorScope(), () => new OutOfMemory(refusal));
    return buffer;
  }

  private encodeRecording(encoder: GPUCommandEncoder): void {
    if (this.recording.dispatches.length === 0) return;
    const pass = encoder.beginComputePass();
    this.recording.encode(pass);
    pass.end();
    this.recording = new Recording();
  }
}

/** A tensor may be freed although its buffer lives on, as another's. */
function isLive({ isFreed, allocation }: BufferRange): boolean {
  return !isFreed && allocation.state === "live";
}
