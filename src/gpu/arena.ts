import { check } from "../check.ts";
import type { Allocation, Memory } from "./memory.ts";

interface Slot {
  readonly allocation: Allocation;
  /** Bytes that the work in progress may take of it. */
  planned: number;
  taken: boolean;
}

/**
 * Scratch buffers that pieces of work share: recordings of one step in several sizes, say. They run one after the other on one
 * queue and leave nothing in it for the next, so together they need no more than the largest of them.
 *
 * Inside `within`, every activation comes from here: a request gets the smallest buffer that is free and planned to be large
 * enough, and a free gives it back. A request that nothing fits makes the arena grow.
 */
export class Arena {
  private readonly memory: Memory;
  private readonly slots: Slot[] = [];
  private readonly label: string;

  /** Buffers of `sizes` bytes, not rounded. Throws OutOfMemory, with nothing left behind. */
  constructor(memory: Memory, sizes: readonly number[], label: string) {
    this.memory = memory;
    this.label = label;
    try {
      for (const size of sizes) this.add(size);
    } catch (error) {
      this.free();
      throw error;
    }
  }

  /** Bytes of its buffers. */
  get bytes(): number {
    return this.slots.reduce((sum, { allocation }) => sum + allocation.bytes, 0);
  }

  /** Bytes of its largest buffer. */
  get largest(): number {
    return Math.max(...this.slots.map(({ allocation }) => allocation.bytes));
  }

  /**
   * Run `body` with its activations from here. `plan` is how much of each buffer this work needs, in the order of the
   * constructor's sizes: smaller work shares the buffers out as the largest does, so that it fits wherever that fits.
   */
  within<T>(plan: readonly number[], body: () => T): T {
    check(!this.memory.arena, "arena: not within another one");
    this.slots.forEach((slot, i) => {
      slot.planned = Math.min(plan[i] ?? slot.allocation.bytes, slot.allocation.bytes);
    });
    this.memory.arena = this;
    try {
      return body();
    } finally {
      this.memory.arena = undefined;
    }
  }

  /** A buffer for a request of `bytes`: Memory asks. Throws OutOfMemory where the arena has to grow and cannot. */
  take(bytes: number): Allocation {
    let best: Slot | undefined;
    for (const slot of this.slots)
      if (!slot.taken && slot.planned >= bytes && slot.planned < (best?.planned ?? Number.POSITIVE_INFINITY))
        best = slot;
    best ??= this.add(bytes);
    best.taken = true;
    return best.allocation;
  }

  /** Take a buffer back that was freed: Memory says so. */
  giveBack(allocation: Allocation): void {
    const slot = this.slots.find((s) => s.allocation === allocation);
    check(slot?.taken, () => `memory: ${allocation.label} (${allocation.purpose}) is freed twice`);
    slot.taken = false;
  }

  /** Give the buffers back. Recordings that use them pin them until they are freed too. */
  free(): void {
    for (const { allocation } of this.slots.splice(0)) {
      allocation.arena = undefined;
      this.memory.free(allocation);
    }
  }

  private add(bytes: number): Slot {
    const { arena } = this.memory;
    this.memory.arena = undefined;
    try {
      const allocation = this.memory.alloc(bytes, "activations", this.label, true);
      allocation.arena = this;
      const slot = { allocation, planned: allocation.bytes, taken: false };
      this.slots.push(slot);
      return slot;
    } finally {
      this.memory.arena = arena;
    }
  }
}
