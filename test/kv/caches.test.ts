import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { BadInput } from "../../src/check.ts";
import { OutOfMemory } from "../../src/gpu/errors.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import {
  type CacheShape,
  type KvCache,
  type Place,
  type RememberingCache,
  remembers,
  type StepRequest,
} from "../../src/kv/cache.ts";
import { ContiguousCache } from "../../src/kv/contiguous-cache.ts";
import { type CacheOptions, makeCache } from "../../src/kv/make-cache.ts";
import { NoCache } from "../../src/kv/no-cache.ts";
import { OutOfPages } from "../../src/kv/page-allocator.ts";
import { PagedCache } from "../../src/kv/paged-cache.ts";
import { scope } from "../../src/tensor.ts";

// Slots and bytes only; what the kernels do with them is tested with the model. So the null backend will do.
const gpu = await Gpu.open({ backend: "null" });
afterAll(() => gpu.close());

const SHAPE: CacheShape = { layers: 2, heads: 3, headSize: 5, dtype: "f32" };
/** Keys and values of 2 layers and 3 heads, heads of 5 channels padded to 8, 4 bytes each. */
const SLOT_BYTES = 2 * 2 * 3 * 8 * 4;

/** A sequence as the model knows it: where each of its tokens lies. */
interface Modelled {
  readonly place: Place;
  readonly slots: number[];
}

const steps = fc.array(
  fc.oneof(
    { weight: 2, arbitrary: fc.record({ do: fc.constant("open" as const) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("close" as const), which: fc.nat(100) }) },
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant("step" as const),
        counts: fc.array(fc.nat(13), { minLength: 1, maxLength: 4 }),
        first: fc.nat(100),
      }),
    },
  ),
  { maxLength: 60, size: "max" },
);

/** What a cache promises about one kind of place. */
interface Rules {
  readonly make: () => KvCache;
  /** Slots taken for good by `tokens` tokens of one sequence. */
  readonly reserves: (tokens: number) => number;
  /** May this slot hold a token? */
  readonly allows: (slot: number) => boolean;
  readonly allocatedSlots: number;
  readonly capacity: number;
  /** Open places at most; undefined for no bound. */
  readonly places?: number;
  readonly longest?: number;
}

const CONTIGUOUS: Rules = {
  make: () => new ContiguousCache(gpu, SHAPE, 3, 20),
  reserves: () => 20,
  allows: (slot) => slot < 60,
  allocatedSlots: 60,
  capacity: 60,
  places: 3,
  longest: 20,
};
const PAGED: Rules = {
  make: () => new PagedCache(gpu, SHAPE, 9, 8),
  reserves: (tokens) => Math.ceil(tokens / 8) * 8,
  allows: (slot) => slot >= 8 && slot < 80, // page 0 is for padding
  allocatedSlots: 80,
  capacity: 72,
};

describe.each([
  ["contiguous", CONTIGUOUS],
  ["paged", PAGED],
])("the %s cache under any sequence of opens, steps and closes", (_, rules) => {
  test("gives every live token a slot of its own, accounts for every byte, and fails without a trace", () => {
    fc.assert(
      fc.property(steps, (list) => {
        const cache = rules.make();
        const live: Modelled[] = [];
        for (const step of list) {
          if (step.do === "open") open();
          else if (step.do === "close" && live.length > 0) {
            const [gone] = live.splice(step.which % live.length, 1);
            cache.close(gone!.place);
            expect(() => cache.close(gone!.place)).toThrow("this place is closed");
          } else if (step.do === "step" && live.length > 0) advance(step.counts, step.first);
          invariants();
        }
        for (const { place } of live) cache.close(place);
        expect(cache.usage()).toMatchObject({ reserved: 0, used: 0, wasted: 0 });
        cache.free();
        expect(gpu.memory.currentByPurpose.kv).toBe(0);

        function open(): void {
          if (rules.places !== undefined && live.length === rules.places) {
            expect(() => cache.open()).toThrow(BadInput);
            return;
          }
          live.push({ place: cache.open(), slots: [] });
        }

        /** One batch: sequences from `first` on, each with its own count of new tokens. */
        function advance(counts: readonly number[], first: number): void {
          const batch = counts
            .slice(0, live.length)
            .map((count, i) => ({ sequence: live[(first + i) % live.length]!, count: count + 1 }));
          const requests = batch.map(({ sequence, count }) => ({ place: sequence.place, count }));
          const grown = new Map(
            batch.map(({ sequence, count }) => [sequence, sequence.slots.length + count]),
          );
          const wanted = live.map((s) => rules.reserves(grown.get(s) ?? s.slots.length));
          const tooLong = [...grown.values()].some(
            (length) => length > (rules.longest ?? Number.POSITIVE_INFINITY),
          );
          if (tooLong || wanted.reduce((a, b) => a + b, 0) > rules.capacity) {
            expect(() => cache.prepare(requests)).toThrow(tooLong ? BadInput : OutOfPages);
            return;
          }
          const slots = slotsFor(cache, requests);
          let row = 0;
          for (const { sequence, count } of batch) {
            sequence.slots.push(...slots.slice(row, row + count));
            row += count;
          }
          expect(slots).toHaveLength(row);
        }

        function invariants(): void {
          const slots = live.flatMap((s) => s.slots);
          expect(new Set(slots).size).toBe(slots.length);
          expect(slots.every(rules.allows)).toBe(true);
          for (const { place, slots } of live) expect(place.length).toBe(slots.length);
          const reserved = live.reduce((sum, s) => sum + rules.reserves(s.slots.length), 0) * SLOT_BYTES;
          const used = slots.length * SLOT_BYTES;
          const allocated = rules.allocatedSlots * SLOT_BYTES;
          expect(cache.usage()).toEqual({ allocated, reserved, used, wasted: reserved - used });
          expect(gpu.memory.currentByPurpose.kv).toBe(allocated);
        }
      }),
      { numRuns: 60 },
    );
  });
});

/** The slots of a step; its arrays are freed at once. */
function slotsFor(cache: KvCache, requests: readonly StepRequest[]): Uint32Array {
  let slots: Uint32Array = new Uint32Array();
  scope(gpu, () => {
    slots = cache.prepare(requests).slotMapping;
    return undefined;
  });
  return slots;
}

describe("slots ahead of need", () => {
  const ahead = fc.array(
    fc.record({
      do: fc.constantFrom(
        "open" as const,
        "close" as const,
        "reserve" as const,
        "grow" as const,
        "step" as const,
      ),
      which: fc.nat(100),
      count: fc.integer({ min: 1, max: 11 }),
    }),
    { maxLength: 80, size: "max" },
  );
  /** A cache that remembers, and what it may hold: places at most, tokens of one, slots in all. */
  const KINDS = [
    { kind: "contiguous", make: () => new ContiguousCache(gpu, SHAPE, 3, 20), places: 3 },
    { kind: "paged", make: () => new PagedCache(gpu, SHAPE, 9, 8), places: 5 },
  ] as const;

  test.each(KINDS)(
    "$kind: what was reserved is found in the row, grows into use, and fails without a trace",
    ({ make, places }) => {
      fc.assert(
        fc.property(ahead, (list) => {
          const cache: RememberingCache = make();
          const { pageSize } = cache;
          const slotOf = (place: Place, position: number) => {
            const row = cache.slotRow(place);
            if (cache.slotPart === "slots-contiguous") return row[0]! + position;
            return row[Math.floor(position / pageSize)]! * pageSize + (position % pageSize);
          };
          const live: Modelled[] = [];
          for (const { do: what, which, count } of list) {
            const chosen = live[which % Math.max(1, live.length)];
            if (what === "open" && live.length < places) live.push({ place: cache.open(), slots: [] });
            else if (chosen && what === "close") {
              cache.close(chosen.place);
              live.splice(live.indexOf(chosen), 1);
            } else if (chosen && what !== "open") {
              const before = [cache.usage(), [...cache.slotRow(chosen.place)], chosen.place.length];
              try {
                if (what === "reserve") cache.reserve(chosen.place, count);
                else if (what === "grow") cache.grow(chosen.place, count);
                else slotsFor(cache, [{ place: chosen.place, count }]);
              } catch (error) {
                expect(error).toBeInstanceOf(cache.mode === "paged" ? OutOfPages : BadInput);
                expect([cache.usage(), [...cache.slotRow(chosen.place)], chosen.place.length]).toEqual(
                  before,
                );
                continue;
              }
              if (what === "reserve") expect(chosen.place.length).toBe(chosen.slots.length);
              else
                for (let i = 0; i < count; i++) chosen.slots.push(slotOf(chosen.place, chosen.slots.length));
              // Rows only grow: what the GPU has read of one stays true.
              const was = before[1] as number[];
              expect(cache.slotRow(chosen.place).slice(0, was.length)).toEqual(was);
              const needed = cache.tableWidth(
                Math.max(1, chosen.place.length + (what === "reserve" ? count : 0)),
              );
              expect(cache.slotRow(chosen.place).length).toBeGreaterThanOrEqual(needed);
            }
            const slots = live.flatMap((s) => s.slots);
            expect(new Set(slots).size).toBe(slots.length);
            for (const { place, slots } of live) expect(place.length).toBe(slots.length);
            expect(cache.usage().used).toBe(slots.length * SLOT_BYTES);
          }
          for (const { place } of live) cache.close(place);
          expect(cache.usage()).toMatchObject({ reserved: 0, used: 0, wasted: 0 });
          cache.free();
        }),
        { numRuns: 60 },
      );
    },
  );

  test("a forward step and a reserved one take the same slots", () => {
    for (const { make } of KINDS) {
      const [one, other] = [make(), make()];
      const [a, b] = [one.open(), other.open()];
      slotsFor(one, [{ place: a, count: 6 }]);
      const slots = slotsFor(one, [{ place: a, count: 5 }]);
      slotsFor(other, [{ place: b, count: 6 }]);
      other.reserve(b, 5);
      other.grow(b, 5);
      expect(other.slotRow(b)).toEqual(one.slotRow(a));
      expect([...slots].at(-1)).toBe(one.mode === "paged" ? 2 * 8 + 2 : 10);
      for (const cache of [one, other]) cache.free();
    }
  });

  test("the width of a row is what its longest sequence needs", () => {
    const [strips, pages] = KINDS.map(({ make }) => make());
    expect([1, 8, 9, 1024].map((tokens) => pages!.tableWidth(tokens))).toEqual([1, 1, 2, 128]);
    expect([1, 1024].map((tokens) => strips!.tableWidth(tokens))).toEqual([1, 1]);
    expect([strips!.pageSize, pages!.pageSize]).toEqual([1, 8]);
    strips!.free();
    pages!.free();
  });

  test("reserved twice is reserved once; pages that were not needed go back with the rest", () => {
    const cache = new PagedCache(gpu, SHAPE, 9, 8);
    const place = cache.open();
    cache.reserve(place, 20);
    cache.reserve(place, 20);
    expect([cache.slotRow(place), cache.usage().reserved]).toEqual([[1, 2, 3], 24 * SLOT_BYTES]);
    cache.grow(place, 2);
    expect(cache.usage()).toMatchObject({ used: 2 * SLOT_BYTES, wasted: 22 * SLOT_BYTES });
    cache.close(place);
    expect(cache.allocator.freeCount).toBe(9);
    cache.free();
  });

  test("a cache that forgets has none, and a closed place gets none", () => {
    expect(remembers(new NoCache(gpu, SHAPE))).toBe(false);
    for (const { make } of KINDS) {
      const cache = make();
      const place = cache.open();
      cache.close(place);
      for (const call of [
        () => cache.reserve(place, 1),
        () => cache.grow(place, 1),
        () => cache.slotRow(place),
      ])
        expect(call).toThrow("this place is closed, or another cache's");
      cache.free();
    }
  });
});

describe.each(["contiguous", "paged"] as const)("no memory for the arrays of a %s step", (mode) => {
  test("changes nothing", async () => {
    const pool = 24 * SLOT_BYTES;
    const small = await Gpu.open({ backend: "null", memoryBudget: pool + 100 });
    const cache =
      mode === "paged" ? new PagedCache(small, SHAPE, 2, 8) : new ContiguousCache(small, SHAPE, 1, 24);
    const place = cache.open();
    const before = cache.usage();
    expect(() => cache.prepare([{ place, count: 3 }])).toThrow(OutOfMemory);
    expect(place.length).toBe(0);
    expect(cache.usage()).toEqual(before);
    expect(small.memory.current).toBe(pool);
    await small.close();
  });
});

describe("the contiguous cache", () => {
  test("keeps a sequence's tokens side by side, in the order of positions", () => {
    const cache = new ContiguousCache(gpu, SHAPE, 2, 10);
    const [a, b] = [cache.open(), cache.open()];
    slotsFor(cache, [
      { place: a, count: 3 },
      { place: b, count: 2 },
    ]);
    const slots = slotsFor(cache, [
      { place: b, count: 1 },
      { place: a, count: 2 },
    ]);
    expect([...slots]).toEqual([12, 3, 4]);
    cache.free();
  });

  test("says what to do about a strip too short and about too many sequences", () => {
    const cache = new ContiguousCache(gpu, SHAPE, 1, 10);
    const place = cache.open();
    expect(() => cache.prepare([{ place, count: 11 }])).toThrow(
      "a sequence of 11 tokens does not fit its strip of 10: raise --max-seq-len",
    );
    expect(place.length).toBe(0);
    expect(() => cache.open()).toThrow(
      "the contiguous cache has 1 strips and all are taken: run fewer sequences",
    );
    cache.free();
  });
});

describe("the paged cache", () => {
  test("counts what the whole batch needs before the first sequence grows", () => {
    const cache = new PagedCache(gpu, SHAPE, 3, 8);
    const [a, b] = [cache.open(), cache.open()];
    slotsFor(cache, [{ place: a, count: 8 }]);
    const before = [cache.usage(), cache.allocator.freeCount];
    let error: unknown;
    try {
      cache.prepare([
        { place: a, count: 1 },
        { place: b, count: 9 },
      ]);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toMatchObject({ name: "OutOfPages", requested: 3, free: 2, total: 3 });
    expect([cache.usage(), cache.allocator.freeCount]).toEqual(before);
    expect([a.length, b.length]).toEqual([8, 0]);
    cache.free();
  });

  test("a page that is full is followed by another, wherever it lies", () => {
    const cache = new PagedCache(gpu, SHAPE, 3, 8);
    const [a, b] = [cache.open(), cache.open()];
    slotsFor(cache, [
      { place: a, count: 7 },
      { place: b, count: 1 },
    ]);
    const slots = slotsFor(cache, [
      { place: a, count: 2 },
      { place: b, count: 1 },
    ]);
    expect([...slots]).toEqual([8 + 7, 24, 16 + 1]);
    cache.free();
  });
});

describe("no cache", () => {
  test("has no bytes and forgets: every step numbers its tokens anew", () => {
    const cache = new NoCache(gpu, SHAPE);
    const [a, b] = [cache.open(), cache.open()];
    for (let i = 0; i < 2; i++) {
      const slots = slotsFor(cache, [
        { place: a, count: 3 },
        { place: b, count: 2 },
      ]);
      expect([...slots]).toEqual([0, 1, 2, 3, 4]);
      expect([a.length, b.length]).toEqual([0, 0]);
      expect(cache.usage()).toEqual({ allocated: 0, reserved: 0, used: 0, wasted: 0 });
    }
    cache.close();
    expect(gpu.memory.currentByPurpose.kv).toBe(0);
  });
});

test("a place of another cache is refused", () => {
  const caches = [new ContiguousCache(gpu, SHAPE, 1, 8), new PagedCache(gpu, SHAPE, 1, 8)];
  for (const cache of caches) {
    const stranger = { length: 0 };
    expect(() => cache.prepare([{ place: stranger, count: 1 }])).toThrow(/another cache's/);
    expect(() => cache.close(stranger)).toThrow(/another cache's/);
    cache.free();
  }
});

describe("making a cache", () => {
  const OPTIONS: CacheOptions = { mode: "paged", sequences: 2, contextLength: 64, expectedLength: 20 };
  const make = (options: Partial<CacheOptions>) => makeCache(gpu, SHAPE, { ...OPTIONS, ...options });

  test.each([
    ["none", {}, 0],
    ["contiguous", {}, 2 * 64],
    ["contiguous", { maxSeqLen: 24 }, 2 * 24],
    // Two sequences of 20 tokens need two pages of 16 each; one more page is for padding.
    ["paged", {}, 5 * 16],
    ["paged", { pageSize: 8 }, 7 * 8],
    ["paged", { pages: 10 }, 11 * 16],
    // No sequence gets longer than the model's context.
    ["paged", { expectedLength: 1000 }, 9 * 16],
  ] as const)("%s with %j takes %i slots", (mode, options, slots) => {
    const cache = make({ mode, ...options });
    expect([cache.mode, cache.usage().allocated]).toEqual([mode, slots * SLOT_BYTES]);
    expect(gpu.memory.currentByPurpose.kv).toBe(slots * SLOT_BYTES);
    cache.free();
  });

  test.each([
    [
      { mode: "contiguous", maxSeqLen: 65 },
      "--max-seq-len is 65; wanted an integer from 1 to the model's context of 64",
    ],
    [{ mode: "contiguous", maxSeqLen: 0 }, "--max-seq-len is 0"],
    [{ pageSize: 7 }, "page size is 7; it must be an integer from 8 to 256 tokens"],
    [{ pageSize: 257 }, "page size is 257"],
    [{ pages: 0 }, "--kv-pages is 0; wanted an integer of at least 1"],
    [{ pages: 1.5 }, "--kv-pages is 1.5"],
  ] as const)("%j is refused", (options, message) => {
    expect(() => make(options)).toThrow(BadInput);
    expect(() => make(options)).toThrow(message);
  });

  test.each(["contiguous", "paged"] as const)("%s above the budget leaves nothing behind", async (mode) => {
    // Room for one of the four tensors and a half.
    const bytes = (80 * SLOT_BYTES) / 4;
    const small = await Gpu.open({ backend: "null", memoryBudget: bytes * 1.5 });
    expect(() => makeCache(small, SHAPE, { ...OPTIONS, mode })).toThrow(OutOfMemory);
    expect(small.memory.current).toBe(0);
    await small.close();
  });

  test("half the bytes with float16", () => {
    const cache = makeCache(gpu, { ...SHAPE, dtype: "f16" }, OPTIONS);
    expect(cache.usage().allocated).toBe((80 * SLOT_BYTES) / 2);
    cache.free();
  });
});
