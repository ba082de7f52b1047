import { check } from "../check.ts";
import type { Admission, Holding, KvSpace, Region, SpaceUsage } from "./kv-space.ts";

export interface StripSpaceOptions {
  /** Slots that sequences can have, without slot 0, which is nobody's as page 0 is. */
  readonly slots: number;
  /** max: every sequence gets maxLength slots. exact: as many as it will need, told by an oracle (`Admission.finalLength`). */
  readonly policy: "max" | "exact";
  /** Most tokens of a sequence. */
  readonly maxLength: number;
}

/** A stretch of free slots. */
interface Hole {
  start: number;
  slots: number;
}

interface Strip extends Holding {
  readonly start: number;
  readonly capacity: number;
  length: number;
}

/**
 * Sequences in strips of consecutive slots, as before paging: each takes its strip when it is admitted and keeps it to its end. The
 * first hole that is large enough is taken (first fit); a strip that is given back merges with the holes beside it.
 *
 * Strips share nothing: there is no prefix cache, and a fork is refused. It could only be a copy of the whole strip, which
 * nobody who compares layouts asks for.
 */
export class StripSpace implements KvSpace {
  readonly kind = "strips";
  readonly pageSize = 1;
  readonly slots: number;
  /** Strips have all they will need from the beginning: nothing is kept back for those who run. */
  readonly watermark = 0;
  readonly #options: StripSpaceOptions;
  /** In the order of slots; no two touch. */
  readonly #holes: Hole[];
  readonly #strips = new Set<Strip>();

  constructor(options: StripSpaceOptions) {
    const { slots, maxLength } = options;
    check(
      Number.isInteger(slots) && slots >= 1 && Number.isInteger(maxLength) && maxLength >= 1,
      `strip space: ${slots} slots for sequences of up to ${maxLength} tokens; wanted integers of at least 1`,
    );
    this.#options = options;
    this.slots = slots + 1;
    this.#holes = [{ start: 1, slots }];
  }

  refusal(sequences: number, finalLength: number): string | undefined {
    const { slots, maxLength } = this.#options;
    if (sequences > 1)
      return `${sequences} sequences of one prompt share pages, and strips cannot be shared: use the layout "pages", or one sequence a request`;
    if (finalLength > maxLength)
      return `a sequence of up to ${finalLength} tokens does not fit its strip of ${maxLength} slots: raise the maximum length, or ask for fewer tokens`;
    const size = this.#sizeFor(finalLength);
    if (size > slots)
      return `a strip of ${size} slots does not fit into ${slots}: give the cache more memory, or ask for fewer tokens`;
    return undefined;
  }

  admit({ tokens, finalLength, owner }: Admission): Holding | undefined {
    check(
      tokens.length <= finalLength && finalLength <= this.#options.maxLength,
      () =>
        `strip space: ${tokens.length} tokens that will be ${finalLength} do not fit a strip of ${this.#options.maxLength}`,
    );
    const size = this.#sizeFor(finalLength);
    const index = this.#holes.findIndex((hole) => hole.slots >= size);
    const hole = this.#holes[index];
    if (hole === undefined) return undefined;
    const strip: Strip = { owner, start: hole.start, capacity: size, length: 0, cachedTokens: 0 };
    hole.start += size;
    hole.slots -= size;
    if (hole.slots === 0) this.#holes.splice(index, 1);
    this.#strips.add(strip);
    return strip;
  }

  /** A strip has all its slots from the beginning, so this is never false. More than it was admitted for throws. */
  grow(holding: Holding, length: number): boolean {
    const strip = this.#own(holding);
    check(
      length >= strip.length && length <= strip.capacity,
      () =>
        `strip space: a strip of ${strip.capacity} slots with ${strip.length} tokens cannot grow to ${length}`,
    );
    strip.length = length;
    return true;
  }

  /** Nothing to do: strips have no prefix cache. */
  commit(holding: Holding): void {
    this.#own(holding);
  }

  fork(): Holding {
    throw new Error(
      "strip space: a strip cannot be shared, so it cannot be forked; see refusal() before several sequences are admitted",
    );
  }

  release(holding: Holding): void {
    const strip = this.#own(holding);
    this.#strips.delete(strip);
    const at = this.#holes.findIndex((hole) => hole.start > strip.start);
    const after = at < 0 ? this.#holes.length : at;
    const hole = { start: strip.start, slots: strip.capacity };
    this.#holes.splice(after, 0, hole);
    this.#merge(after);
    if (after > 0) this.#merge(after - 1);
  }

  slotRow(holding: Holding): readonly number[] {
    return [this.#own(holding).start];
  }

  /** O(strips). */
  usage(): SpaceUsage {
    const total = this.#options.slots;
    let free = 0;
    let largestFree = 0;
    for (const { slots } of this.#holes) {
      free += slots;
      largestFree = Math.max(largestFree, slots);
    }
    let used = 0;
    for (const { length } of this.#strips) used += length;
    return { total, reserved: total - free, used, logical: used, free, largestFree, cached: 0 };
  }

  /** A region for each strip and each hole. */
  regions(): Region[] {
    const strips = [...this.#strips].map(({ start, capacity, length, owner }) => ({
      slot: start,
      slots: capacity,
      used: length,
      owners: [owner],
      isCached: false,
    }));
    const holes = this.#holes.map(({ start, slots }) => ({
      slot: start,
      slots,
      used: 0,
      owners: [],
      isCached: false,
    }));
    return [...strips, ...holes].sort((a, b) => a.slot - b.slot);
  }

  /** One hole of hole `index` and the next, if they touch. */
  #merge(index: number): void {
    const hole = this.#holes[index]!;
    const next = this.#holes[index + 1];
    if (next === undefined || hole.start + hole.slots !== next.start) return;
    hole.slots += next.slots;
    this.#holes.splice(index + 1, 1);
  }

  #sizeFor(finalLength: number): number {
    return this.#options.policy === "max" ? this.#options.maxLength : finalLength;
  }

  #own(holding: Holding): Strip {
    check(this.#strips.has(holding as Strip), "strip space: this strip was released, or is another space's");
    return holding as Strip;
  }
}
