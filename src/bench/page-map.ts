// What the page map shows: who has which slots, at many moments of a run, in one list of small integers. Pure.
import { check } from "../check.ts";
import type { Region } from "../kv/kv-space.ts";

/** Slots with one fate. `ref` says whose they are: 0 nobody's, -1 nobody's but known to the prefix cache, n those of owner set n - 1. */
export interface MapRegion {
  readonly slot: number;
  readonly slots: number;
  readonly used: number;
  readonly ref: number;
}

/** One moment of a run, as a person reads it. */
export interface MapMoment {
  /** The step that is about to run, from 0. */
  readonly step: number;
  readonly running: number;
  readonly waiting: number;
  /** Requests wait because nobody of them fits: free slots are external fragmentation. */
  readonly blocked: boolean;
  readonly reserved: number;
  readonly used: number;
}

/** All moments of one layout; JSON, and small: see `encodeChanges`. */
export interface MapPanel {
  readonly title: string;
  /** Slots of a page; 1 for strips. */
  readonly pageSize: number;
  /** The slot that is drawn first: the one slot of padding before strips comes on top of the budget. */
  readonly origin: number;
  readonly moments: readonly MapMoment[];
  /** For each moment what changed since the one before it. */
  readonly changes: readonly (readonly number[])[];
  /** Owners of the regions, each set once. */
  readonly owners: readonly (readonly number[])[];
}

/** Several layouts under the same requests, side by side. */
export interface PageMap {
  readonly id: string;
  readonly title: string;
  /** Slots of the budget: what each panel draws, whether its layout can hand them out or not. */
  readonly slots: number;
  /** Moments are so many steps apart, but for the last one of each panel, after its last step. */
  readonly every: number;
  readonly panels: readonly MapPanel[];
}

/** Takes down the regions of a space, moment by moment. */
export class PageMapRecorder {
  readonly #moments: MapMoment[] = [];
  readonly #changes: number[][] = [];
  readonly #owners: number[][] = [];
  readonly #refs = new Map<string, number>();
  #last: readonly MapRegion[] = [];

  add(moment: MapMoment, regions: readonly Region[]): void {
    const now = regions.map((r) => ({ slot: r.slot, slots: r.slots, used: r.used, ref: this.#refOf(r) }));
    this.#moments.push(moment);
    this.#changes.push(encodeChanges(this.#last, now));
    this.#last = now;
  }

  /** @param origin the slot where the budget begins */
  panel(title: string, pageSize: number, origin: number): MapPanel {
    return { title, pageSize, origin, moments: this.#moments, changes: this.#changes, owners: this.#owners };
  }

  #refOf({ owners, isCached }: Region): number {
    if (owners.length === 0) return isCached ? -1 : 0;
    const key = owners.join();
    const known = this.#refs.get(key);
    if (known !== undefined) return known;
    this.#owners.push([...owners]);
    this.#refs.set(key, this.#owners.length);
    return this.#owners.length;
  }
}

/**
 * The regions of `now` that are not in `before`, one after the other. Each begins with its slot, counted from the slot of the one
 * before it (the first from 0). Where only `used` changed, that follows; else -slots, used and ref. A step of decoding is two small
 * numbers a sequence.
 */
export function encodeChanges(before: readonly MapRegion[], now: readonly MapRegion[]): number[] {
  const old = new Map(before.map((r) => [r.slot, r]));
  const changes: number[] = [];
  let slot = 0;
  for (const r of now) {
    const was = old.get(r.slot);
    const sameOtherwise = was?.slots === r.slots && was.ref === r.ref;
    if (sameOtherwise && was.used === r.used) continue;
    changes.push(r.slot - slot);
    if (sameOtherwise) changes.push(r.used);
    else changes.push(-r.slots, r.used, r.ref);
    slot = r.slot;
  }
  return changes;
}

/**
 * The regions after `changes`. A new region takes the place of all that began within it.
 *
 * The report's script has this function as it stands here, by its text: it may use nothing but its arguments.
 */
export function applyChanges(before: readonly MapRegion[], changes: readonly number[]): MapRegion[] {
  const now: MapRegion[] = [];
  let old = 0;
  let covered = 0;
  let slot = 0;
  const keepUpTo = (end: number) => {
    for (; old < before.length && before[old]!.slot < end; old++)
      if (before[old]!.slot >= covered) now.push(before[old]!);
  };
  for (let i = 0; i < changes.length; ) {
    slot += changes[i++]!;
    keepUpTo(slot);
    const first = changes[i++]!;
    const region =
      first >= 0
        ? { ...before[old]!, used: first }
        : { slot, slots: -first, used: changes[i++]!, ref: changes[i++]! };
    now.push(region);
    covered = slot + region.slots;
  }
  keepUpTo(Number.POSITIVE_INFINITY);
  return now;
}

/** The regions of a panel at moment `index`; past its end those of its last one. */
export function regionsAt(panel: MapPanel, index: number): MapRegion[] {
  let regions: MapRegion[] = [];
  for (const changes of panel.changes.slice(0, index + 1)) regions = applyChanges(regions, changes);
  return regions;
}

/** The map with every second moment alone, but each panel's last one. */
export function thinned(map: PageMap): PageMap {
  return { ...map, every: 2 * map.every, panels: map.panels.map(thinnedPanel) };
}

function thinnedPanel(panel: MapPanel): MapPanel {
  const last = panel.changes.length - 1;
  const kept = panel.changes.map((_, i) => i).filter((i) => i % 2 === 0 || i === last);
  const changes: number[][] = [];
  let regions: MapRegion[] = [];
  let before: MapRegion[] = [];
  panel.changes.forEach((change, i) => {
    regions = applyChanges(regions, change);
    if (!kept.includes(i)) return;
    changes.push(encodeChanges(before, regions));
    before = regions;
  });
  return { ...panel, changes, moments: kept.map((i) => panel.moments[i]!) };
}

/** `map` thinned until its JSON has at most `bytes` characters. */
export function mapWithin(map: PageMap, bytes: number): PageMap {
  let small = map;
  while (JSON.stringify(small).length > bytes && small.panels.some((p) => p.moments.length > 2))
    small = thinned(small);
  return small;
}

/**
 * The step for the still picture: where requests wait in as many layouts as ever and, of those steps, most slots are used in all layouts
 * together; the first of several.
 */
export function fullestStep({ panels }: PageMap): number {
  const steps = [...new Set(panels.flatMap((p) => p.moments.map((m) => m.step)))].sort((a, b) => a - b);
  check(steps.length > 0, "page map: it has no moment; it needs at least one");
  const next = panels.map(() => 0);
  let best = { step: 0, waits: -1, used: -1 };
  for (const step of steps) {
    let waits = 0;
    let used = 0;
    panels.forEach(({ moments }, i) => {
      while (next[i]! + 1 < moments.length && moments[next[i]! + 1]!.step <= step) next[i]!++;
      const moment = moments[next[i]!]!;
      waits += moment.waiting > 0 ? 1 : 0;
      used += moment.used;
    });
    if (waits > best.waits || (waits === best.waits && used > best.used)) best = { step, waits, used };
  }
  return best.step;
}

/** The last moment of a panel that is not after `step`. The report's script has it by its text, as `applyChanges`. */
export function momentAt(moments: readonly MapMoment[], step: number): number {
  let index = 0;
  while (index + 1 < moments.length && moments[index + 1]!.step <= step) index++;
  return index;
}
