import { check } from "../check.ts";
import { DeviceLost, GpuError, OutOfMemory } from "./errors.ts";
import { Naps } from "./naps.ts";

/**
 * The errors that WebGPU reports late, when the call that caused them has long returned: verdicts of error scopes, errors
 * outside of any scope, and the loss of the device. The first one is kept and thrown by the next call, and by every later
 * one unless it is OutOfMemory.
 *
 * A buffer or pipeline that failed makes everything that uses it fail too. Those consequences come outside of any scope,
 * sometimes before the verdict that explains them: they are held back while verdicts are to come, and dropped for one.
 */
export class LateErrors {
  private readonly device: GPUDevice;
  private failure: Error | undefined;
  /** An error outside of any scope: the consequence of a verdict, or a mistake of its own. */
  private consequence: Error | undefined;
  private closed = false;
  /** Where waiting costs the kernels a core. */
  private readonly naps: Naps | undefined;
  /** Resolves when the device is gone and `failure` says so. */
  private readonly lost: Promise<void>;
  /** Error scopes whose verdict is still to come. */
  private readonly pending = new Set<Promise<void>>();

  /** `naps`: wait with naps, as naps.ts says. */
  constructor(device: GPUDevice, naps: boolean) {
    this.device = device;
    this.naps = naps ? new Naps() : undefined;
    device.onuncapturederror = (event) => {
      this.consequence ??= new GpuError(`WebGPU: ${oneLine(event.error.message)}`);
    };
    this.lost = device.lost.then(({ message, reason }) => {
      if (this.closed) return;
      this.failure = new DeviceLost(`DEVICE_LOST: ${oneLine(message || reason)}; open the GPU again`);
    });
  }

  get isLost(): boolean {
    return this.failure instanceof DeviceLost;
  }

  /** Throw what went wrong so far, or that the Gpu is closed. */
  throwIfFailed(): void {
    check(!this.closed, "this Gpu is closed");
    if (this.pending.size === 0) this.failure ??= this.consequence;
    const { failure } = this;
    if (!failure) return;
    this.consequence = undefined;
    // A buffer that the device had no room for can be done without: told once, and other work may go on. A lost device
    // stays lost, and a mistake in a kernel or a call stays a mistake.
    if (failure instanceof OutOfMemory) this.failure = undefined;
    throw failure;
  }

  /** Keep the verdict of an error scope: it is thrown by the next submit, read or settle. */
  expectNone(scope: Promise<GPUError | null>, explain: (error: GPUError) => Error | Promise<Error>): void {
    const verdict: Promise<void> = scope
      // A scope is only rejected when its device is gone; wait until `lost` has said so.
      .catch(() => this.lost.then(() => null))
      .then(async (error) => {
        if (error) this.failure ??= await explain(error);
      })
      .catch((error: Error) => {
        this.failure ??= error;
      })
      .finally(() => this.pending.delete(verdict));
    this.pending.add(verdict);
  }

  /** Wait for every verdict that is to come, and throw the first error. */
  async settle(): Promise<void> {
    while (this.pending.size > 0) await Promise.all(this.pending);
    // What was submitted with the refused buffer fails too, and says so before this comes back.
    if (this.failure instanceof OutOfMemory)
      await this.device.queue.onSubmittedWorkDone().catch(() => this.lost);
    this.throwIfFailed();
  }

  /** What a promise of the device gives, or DeviceLost when the device goes first. */
  async orLost<T>(promise: Promise<T>): Promise<T> {
    try {
      return await (this.naps ? this.naps.until(promise) : promise);
    } catch (error) {
      // The loss may be announced a moment after the promises that it breaks.
      await Promise.race([this.lost, new Promise((resolve) => setTimeout(resolve, 100))]);
      this.throwIfFailed();
      throw new GpuError(`WebGPU: ${oneLine((error as Error).message)}`);
    }
  }

  /** From now on every call is told that the Gpu is closed. False when it was closed already. */
  close(): boolean {
    const first = !this.closed;
    this.closed = true;
    return first;
  }
}

const oneLine = (text: string): string => text.trim().replace(/\s+/g, " ");
