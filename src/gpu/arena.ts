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
  private readonly exact: boolean;
  /** Of the work in progress: which buffers its requests take, and how many requests there were. */
  private order: readonly number[] = [];
  private requests = 0;

  /**
   * Buffers of `sizes` bytes: `exact`, or rounded to a class of the pool, where they come from and go to. Throws OutOfMemory, with
   * nothing left behind.
   */
  constructor(memory: Memory, sizes: readonly number[], label: string, { exact = true } = {}) {
    this.memory = memory;
    this.label = label;
    this.exact = exact;
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
   * constructor's sizes: smaller work shares the buffers out as the largest does, so that it fits wherever that fits. `order` is
   * the buffer that each request takes, as a plan has it; where it is taken or too small the smallest that fits is.
   */
  within<T>(plan: readonly number[], body: () => T, order: readonly number[] = []): T {
    check(!this.memory.arena, "arena: not within another one");
    this.order = order;
    this.requests = 0;
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
    const fits = (slot: Slot | undefined) => slot !== undefined && !slot.taken && slot.planned >= bytes;
    let best: Slot | undefined = this.slots[this.order[this.requests++] ?? -1];
    if (!fits(best)) {
      best = undefined;
      for (const slot of this.slots) if (fits(slot) && !(best && best.planned <= slot.planned)) best = slot;
    }
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
    for (const slot of this.slots) slot.taken = false;
    this.dissolve();
  }

  /** Give back what is not taken; what is taken belongs to who took it, as if no arena had been. */
  dissolve(): void {
    for (const { allocation, taken } of this.slots.splice(0)) {
      allocation.arena = undefined;
      if (!taken) this.memory.free(allocation);
    }
  }

  private add(bytes: number): Slot {
    const { arena } = this.memory;
    this.memory.arena = undefined;
    try {
      const allocation = this.memory.alloc(bytes, "activations", this.label, this.exact);
      allocation.arena = this;
      const slot = { allocation, planned: allocation.bytes, taken: false };
      this.slots.push(slot);
      return slot;
    } finally {
      this.memory.arena = arena;
    }
  }
}
