import { check } from "../check.ts";
import type { AdapterInfo } from "./adapter.ts";
import { Bindings } from "./bindings.ts";
import { createBuffer } from "./create-buffer.ts";
import { OutOfMemory } from "./errors.ts";
import { LateErrors } from "./late-errors.ts";
import { Memory, type Purpose } from "./memory.ts";
import { type OpenedDevice, type OpenOptions, openDevice } from "./open-device.ts";
import { type CompiledKernel, Pipelines } from "./pipelines.ts";
import { ReadBack } from "./read-back.ts";
import { type BufferRange, isLive, Recording, ReplayableRecording, type Work } from "./recording.ts";
import type { Tuning } from "./tuning.ts";
import type { KernelSource } from "./wgsl.ts";

export type { OpenOptions } from "./open-device.ts";

/**
 * One adapter and device, its queue, its memory ledger and its late errors.
 *
 * Ops add dispatches to the recording in progress; `submit` runs it, `read` runs it and copies a result out. WebGPU
 * reports errors late: every one is kept and thrown by the next submit, read or settle, and what was recorded and not
 * submitted is dropped with it.
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
  private readonly adapterLimits: GPUSupportedLimits;
  /** The part of the model that dispatches belong to from now on, such as "layer 0": the profile groups by it. */
  stage = "";
  /** Tile sizes that were measured on this adapter, where somebody loaded them; they change times, never results. */
  tuning: Tuning | undefined;
  private recording = new Recording();
  private readonly pipelines: Pipelines;
  private readonly bindings: Bindings;
  private readonly errors: LateErrors;
  readonly readBack: ReadBack;
  private dispatched = 0;
  private capturing = false;

  /** Open an adapter and a device. Throws NoAdapter when there is none that fits. */
  static async open(options: OpenOptions = {}): Promise<Gpu> {
    return new Gpu(await openDevice(options), options);
  }

  private constructor({ device, info, adapterLimits }: OpenedDevice, options: OpenOptions) {
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
      this.maxBindingBytes,
    );
    this.bindings = new Bindings(device, this.memory, (range, data) => this.write(range, data));
    this.errors = new LateErrors(device, info.software && info.runtime === "node");
    this.readBack = new ReadBack(this.memory, this.errors, () => this.settle());
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

  countDispatches(count: number): void {
    this.dispatched += count;
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
    work?: () => Work,
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
      stage: this.stage,
      pipeline: kernel.pipeline,
      bindGroup: this.bindings.group(kernel, all),
      workgroups,
      allocations: all.map((range) => range.allocation),
      work,
    });
    this.dispatched++;
  }

  /** Run what was recorded. Throws errors that came in since the last call; those of this work come later. */
  submit(): void {
    this.throwIfFailed();
    if (this.recording.dispatches.length === 0) return;
    check(!this.capturing, "submit: not while a recording for replay is made");
    this.send();
    this.memory.afterSubmit();
  }

  private send(): void {
    const encoder = this.device.createCommandEncoder();
    this.encodeRecording(encoder);
    this.device.queue.submit([encoder.finish()]);
  }

  /** Run the first part of a recording, so that a GPU is busy while the rest is recorded; one for replay stays whole. */
  flush(): void {
    if (!this.capturing && this.recording.dispatches.length > 0) this.send();
  }

  /** Take the recording in progress away, to run it elsewhere (the timer does). Its buffers stay as they are. */
  takeRecording(): Recording {
    const taken = this.recording;
    this.recording = new Recording();
    return taken;
  }

  /**
   * Record what `body` adds, to be run by `prepareRun` (replay.ts) as often as wanted. Tensors that `body` makes and frees serve one
   * another as scratch, as in any recording, and belong to this one until it is freed.
   */
  record(body: () => void): ReplayableRecording {
    this.submit();
    this.capturing = true;
    try {
      body();
    } catch (error) {
      this.discardRecording();
      throw error;
    } finally {
      this.capturing = false;
    }
    const recording = new ReplayableRecording(this.takeRecording(), this.memory);
    this.memory.endRecording();
    return recording;
  }

  /** Run what was recorded, wait, and return `bytes` bytes of `range` from `offset`. */
  async read(range: BufferRange, offset = 0, bytes = range.bytes - offset): Promise<ArrayBuffer> {
    this.throwIfFailed();
    check(isLive(range), () => `read: ${range.allocation.label} was freed`);
    check(
      offset % 4 === 0 && bytes > 0 && offset + bytes <= range.bytes,
      `read: [${offset}, ${offset + bytes}) of ${range.bytes} bytes`,
    );
    const target = this.readBack.target(bytes);
    try {
      const encoder = this.device.createCommandEncoder();
      this.encodeRecording(encoder);
      this.readBack.copy(encoder, range, offset, target);
      this.device.queue.submit([encoder.finish()]);
    } catch (error) {
      this.readBack.drop(target);
      throw error;
    }
    this.memory.afterSubmit();
    return this.readBack.result(target);
  }

  /** Write into a range. Recorded work that uses its buffer is submitted first, since queue writes overtake it. */
  write(range: BufferRange, data: ArrayBuffer | ArrayBufferView, offset = 0): void {
    this.throwIfFailed();
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
    try {
      await this.errors.settle();
    } catch (error) {
      this.abandon(error);
      throw error;
    }
  }

  /** Forget what was recorded and not submitted. */
  discardRecording(): void {
    this.recording = new Recording();
    this.memory.endRecording();
  }

  /** Give back what is only kept for reuse, pooled buffers and params, so that a measurement begins without them. */
  trim(): void {
    this.submit();
    this.bindings.freeUniforms();
    this.memory.trim();
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
  }

  private throwIfFailed(): void {
    try {
      this.errors.throwIfFailed();
    } catch (error) {
      this.abandon(error);
      throw error;
    }
  }

  /** Nothing that a failure may have spoilt is run or used again. */
  private abandon(error: unknown): void {
    this.discardRecording();
    if (error instanceof OutOfMemory) this.bindings.freeUniforms();
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
      const { maxStorageBufferBindingSize, maxBufferSize } = this.adapterLimits;
      const offered = Math.min(maxStorageBufferBindingSize, maxBufferSize);
      const limits = `device allows ${allowed} (adapter offers ${offered})`;
      throw new OutOfMemory(`LIMIT: ${label} needs a ${bytes}-byte binding, ${limits}`);
    }
    const refusal = this.memory.refusal(bytes, purpose, label, "the device has no more");
    return createBuffer(this.device, this.errors, bytes, purpose, label, (buffer) => {
      this.memory.refuse(buffer);
      return new OutOfMemory(refusal);
    });
  }

  private encodeRecording(encoder: GPUCommandEncoder): void {
    if (this.recording.dispatches.length === 0) return;
    const pass = encoder.beginComputePass();
    this.recording.encode(pass);
    pass.end();
    this.recording = new Recording();
  }
}
