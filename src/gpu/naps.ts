/** Longest nap: the event loop turns at least so often, and a result is seen so much later at most. */
const LONGEST_MS = 0.2;

/** Nobody ever wakes a nap: it ends by its time. */
const bed = new Int32Array(new SharedArrayBuffer(4));

/**
 * Waiting for the software adapter.
 *
 * Dawn's binding for Node asks for results in every turn of the event loop, and turns it without a pause. That is right for
 * a GPU, whose results are due in microseconds; here it would take a core from the kernels, which run on the same ones. So
 * while something is awaited each turn naps for an eighth of the time that the wait has taken so far.
 */
export class Naps {
  private waits = 0;
  private since = 0;

  /** What `promise` gives, with naps until then. */
  async until<T>(promise: Promise<T>): Promise<T> {
    this.since = performance.now();
    if (this.waits++ === 0) this.nap();
    try {
      return await promise;
    } finally {
      this.waits--;
    }
  }

  private nap(): void {
    if (this.waits === 0) return;
    Atomics.wait(bed, 0, 0, Math.min(LONGEST_MS, (performance.now() - this.since) / 8));
    setImmediate(() => this.nap());
  }
}
