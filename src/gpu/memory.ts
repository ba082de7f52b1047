import { check } from "../check.ts";
import type { Arena } from "./arena.ts";
import { OutOfMemory } from "./errors.ts";

/** What a byte of GPU memory is for. */
export const PURPOSES = ["weights", "kv", "activations", "tables", "staging"] as const;
export type Purpose = (typeof PURPOSES)[number];
export type ByPurpose = Record<Purpose, number>;

/** One GPUBuffer and what the ledger knows of it. */
export interface Allocation {
  readonly id: number;
  readonly buffer: GPUBuffer;
  /** Size of the GPUBuffer; at least what was asked for. */
  readonly bytes: number;
  readonly purpose: Purpose;
  /** Who asked for it, for the breakdown; changes when the buffer is reused. */
  label: string;
  state: "live" | "pooled" | "held" | "gone"; // held: freed, but pinned by a recording
  /** Recordings that are to run again and use it. */
  pins: number;
  /** Number of the last recording that uses it; see Gpu.submit. */
  lastUse: number;
  /** Whose it is, when it is lent out again and again. */
  arena: Arena | undefined;
  /** The device had no room for it: its GPUBuffer is of no use, and nobody else may get it. */
  refused: boolean;
}

/** Buffers of these purposes come and go with every step, so freed ones are kept for the next. */
const POOLED: readonly Purpose[] = ["activations", "tables", "staging"];

/** A pooled buffer that this many submits did not want is given back. */
const IDLE_SUBMITS = 2;

const zero = (): ByPurpose => ({ weights: 0, kv: 0, activations: 0, tables: 0, staging: 0 });

/**
 * The one door to GPU memory, and its ledger: at every moment `current` is the sum of the sizes of all GPUBuffers that
 * exist, pooled ones included, and it is zero again after `destroyAll`.
 */
export class Memory {
  /** Bytes that may exist at once; Infinity when nobody set a budget. */
  readonly budget: number;
  private readonly largest: number;
  private readonly createBuffer: (bytes: number, purpose: Purpose, label: string) => GPUBuffer;
  private readonly allocations = new Set<Allocation>();
  private readonly pool = new Map<string, Allocation[]>();
  private readonly condemned: Allocation[] = [];
  private readonly destroyListeners: ((a: Allocation) => void)[] = [];
  private nextId = 1;
  private nowByPurpose = zero();
  private peakByPurposeAtPeak = zero();
  private peakTotal = 0;
  private peakEach = zero();
  private allDestroyed = false;
  /** Number of the recording in progress: what it uses must outlive its submit. */
  recordingNumber = 1;
  /** Where activations come from, while work runs within an arena. */
  arena: Arena | undefined;

  /** `largest` is the size in bytes of the largest buffer that the device can bind. */
  constructor(
    createBuffer: Memory["createBuffer"],
    budget = Number.POSITIVE_INFINITY,
    largest = Number.POSITIVE_INFINITY,
  ) {
    this.createBuffer = createBuffer;
    this.budget = budget;
    this.largest = largest;
  }

  /** Bytes of all GPUBuffers that exist now. */
  get current(): number {
    return PURPOSES.reduce((sum, p) => sum + this.nowByPurpose[p], 0);
  }
  /** The largest `current` since the start or the last resetPeak. */
  get peak(): number {
    return this.peakTotal;
  }
  get currentByPurpose(): ByPurpose {
    return { ...this.nowByPurpose };
  }
  /** How `peak` was made up at the moment it was reached: sums to `peak`. */
  get peakByPurpose(): ByPurpose {
    return { ...this.peakByPurposeAtPeak };
  }
  /** The largest each purpose ever was, on its own: sums to `peak` or more. */
  get peakOfEach(): ByPurpose {
    return { ...this.peakEach };
  }

  /** Bytes now by label, largest first. */
  byLabel(): { purpose: Purpose; label: string; bytes: number; count: number }[] {
    const rows = new Map<string, { purpose: Purpose; label: string; bytes: number; count: number }>();
    for (const a of this.allocations) {
      const label = a.state === "pooled" ? "(free for reuse)" : a.label;
      const row = rows.get(`${a.purpose} ${label}`) ?? { purpose: a.purpose, label, bytes: 0, count: 0 };
      row.bytes += a.bytes;
      row.count++;
      rows.set(`${a.purpose} ${label}`, row);
    }
    return [...rows.values()].sort((a, b) => b.bytes - a.bytes);
  }

  /** Start a new peak from what exists now. */
  resetPeak(): void {
    this.peakTotal = 0;
    this.peakByPurposeAtPeak = zero();
    this.peakEach = zero();
    this.notePeak();
  }

  /**
   * A buffer of at least `bytes`, a new one or a freed one of the same purpose and size class. Its content is undefined.
   * Throws OutOfMemory, with the breakdown, when the budget does not allow it. With `exact` the size is not rounded.
   */
  alloc(bytes: number, purpose: Purpose, label: string, exact = false): Allocation {
    check(
      Number.isSafeInteger(bytes) && bytes > 0,
      `memory: ${label} asks for ${bytes} bytes; wanted a positive integer`,
    );
    if (this.arena && purpose === "activations") return this.arena.take(bytes);
    const pooled = POOLED.includes(purpose);
    const words = Math.ceil(bytes / 4) * 4;
    // A size class may be past what the device can bind although the bytes are not.
    const size = pooled && !exact ? Math.max(words, Math.min(sizeClass(bytes), this.largest)) : words;
    const free = pooled ? this.pool.get(`${purpose} ${size}`)?.pop() : undefined;
    if (free) {
      free.state = "live";
      free.label = label;
      return free;
    }
    if (this.current + size > this.budget) this.trim(0);
    if (this.current + size > this.budget)
      throw new OutOfMemory(this.refusal(size, purpose, label, `budget ${mib(this.budget)}`));
    const buffer = this.createBuffer(size, purpose, label);
    const a: Allocation = {
      id: this.nextId++,
      buffer,
      bytes: size,
      purpose,
      label,
      state: "live",
      pins: 0,
      lastUse: 0,
      arena: undefined,
      refused: false,
    };
    this.allocations.add(a);
    this.nowByPurpose[purpose] += size;
    this.notePeak();
    return a;
  }

  /** Give a buffer back. Work already recorded may still use it: it is only destroyed after that work was submitted. */
  free(a: Allocation): void {
    // What still held it when everything was destroyed lets go of it late, often while an error is on its way.
    if (this.allDestroyed) return;
    check(a.state === "live", `memory: ${a.label} (${a.purpose}) is freed twice`);
    if (a.arena) {
      a.arena.giveBack(a);
      return;
    }
    if (a.pins > 0) {
      a.state = "held";
      return;
    }
    this.release(a);
  }

  /**
   * A recording that will run again uses this buffer: nobody else may get it until `unpin`, also when its owner frees it or
   * has freed it already.
   */
  pin(a: Allocation): void {
    check(a.state !== "gone", `memory: ${a.label} (${a.purpose}) is gone, and a recording wants it`);
    a.pins++;
    if (a.state !== "pooled") return;
    this.leavePool(a);
    const condemned = this.condemned.indexOf(a);
    if (condemned >= 0) this.condemned.splice(condemned, 1);
    a.state = "held";
  }

  unpin(a: Allocation): void {
    if (this.allDestroyed) return;
    check(a.pins > 0, `memory: ${a.label} (${a.purpose}) is not pinned`);
    a.pins--;
    if (a.pins === 0 && a.state === "held") this.release(a);
  }

  /** Nobody owns the buffer any more: keep it for reuse, or destroy it as soon as no recorded work needs it. */
  private release(a: Allocation): void {
    if (POOLED.includes(a.purpose) && !a.refused) {
      a.state = "pooled";
      const key = `${a.purpose} ${a.bytes}`;
      const list = this.pool.get(key);
      if (list) list.push(a);
      else this.pool.set(key, [a]);
    } else if (a.lastUse === this.recordingNumber) {
      a.state = "pooled";
      this.condemned.push(a);
    } else this.destroy(a);
  }

  /** The device had no room for this buffer, and says so late: keep it from being used again. */
  refuse(buffer: GPUBuffer): void {
    for (const a of this.allocations) {
      if (a.buffer !== buffer) continue;
      a.refused = true;
      if (a.state !== "pooled") continue;
      this.leavePool(a);
      this.condemned.push(a);
    }
  }

  private leavePool(a: Allocation): void {
    const key = `${a.purpose} ${a.bytes}`;
    this.pool.set(key, this.pool.get(key)?.filter((other) => other !== a) ?? []);
  }

  /** Call right after a submit: what the recording kept alive may go now, and idle pooled buffers with it. */
  afterSubmit(): void {
    this.endRecording();
    this.trim(IDLE_SUBMITS);
  }

  /** Call when the recording in progress is over, run or not: nothing recorded needs a buffer any more. */
  endRecording(): void {
    this.recordingNumber++;
    for (const a of this.condemned.splice(0)) this.destroy(a);
  }

  /** Destroy pooled buffers that the last `idle` recordings did not use; never one that recorded work still needs. */
  trim(idle = 0): void {
    for (const [key, list] of this.pool) {
      const keep = list.filter(
        (a) => a.lastUse === this.recordingNumber || a.lastUse > this.recordingNumber - 1 - idle,
      );
      for (const a of list) if (!keep.includes(a)) this.destroy(a);
      if (keep.length) this.pool.set(key, keep);
      else this.pool.delete(key);
    }
  }

  /** Called with every allocation whose GPUBuffer is about to go. */
  onDestroy(listener: (a: Allocation) => void): void {
    this.destroyListeners.push(listener);
  }

  /** Destroy everything; afterwards `current` is 0, and it does no harm to free what was destroyed. */
  destroyAll(): void {
    this.allDestroyed = true;
    for (const a of [...this.allocations]) this.destroy(a);
    this.pool.clear();
    this.condemned.length = 0;
  }

  /** One line that says what was asked for, what is in use, and for what. */
  refusal(bytes: number, purpose: Purpose, label: string, limit: string): string {
    const use = PURPOSES.filter((p) => this.nowByPurpose[p] > 0).map(
      (p) => `${p} ${mib(this.nowByPurpose[p])}`,
    );
    return (
      `OOM: buffer ${label} (${purpose}) ${bytes} bytes; in use ${mib(this.current)} (${use.join(", ") || "nothing"}), ${limit}; ` +
      `use a shorter --max-seq-len, fewer --kv-pages, --dtype f16 or --kv-dtype f16, or raise --memory`
    );
  }

  private destroy(a: Allocation): void {
    for (const listener of this.destroyListeners) listener(a);
    a.state = "gone";
    this.allocations.delete(a);
    this.nowByPurpose[a.purpose] -= a.bytes;
    a.buffer.destroy();
  }

  private notePeak(): void {
    for (const p of PURPOSES) this.peakEach[p] = Math.max(this.peakEach[p], this.nowByPurpose[p]);
    if (this.current <= this.peakTotal) return;
    this.peakTotal = this.current;
    this.peakByPurposeAtPeak = { ...this.nowByPurpose };
  }
}

/**
 * Pooled sizes are rounded up to one of four classes an octave (1, 1.25, 1.5, 1.75 × 2^n), at least 256 bytes: at most a
 * quarter is wasted, and a sequence that grows by a token a step finds its buffers again in most steps.
 */
export function sizeClass(bytes: number): number {
  if (bytes <= 256) return 256;
  const quarter = 2 ** Math.floor(Math.log2(bytes)) / 4;
  return Math.ceil(bytes / quarter) * quarter;
}

const mib = (bytes: number): string =>
  Number.isFinite(bytes) ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : "none";
