import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { OutOfMemory } from "../../src/gpu/errors.ts";
import { type Allocation, Memory, PURPOSES, type Purpose, sizeClass } from "../../src/gpu/memory.ts";

/** Stands in for a GPUBuffer: it knows its size and whether it exists. */
interface FakeBuffer {
  readonly size: number;
  readonly purpose: Purpose;
  exists: boolean;
}

/** A ledger over fake buffers, and every buffer it ever made. */
function fakeMemory(budget?: number) {
  const made: FakeBuffer[] = [];
  const inRecording = new Set<FakeBuffer>();
  const faults: string[] = [];
  const memory = new Memory((size, purpose) => {
    const buffer = { size, purpose, exists: true };
    const destroy = () => {
      if (!buffer.exists) faults.push("a buffer was destroyed twice");
      if (inRecording.has(buffer)) faults.push("a buffer that recorded work uses was destroyed");
      buffer.exists = false;
    };
    made.push(buffer);
    return Object.assign(buffer, { destroy }) as unknown as GPUBuffer;
  }, budget);
  const existing = () => made.filter((b) => b.exists);
  return { memory, made, existing, inRecording, faults };
}

const fakeOf = (a: Allocation): FakeBuffer => a.buffer as unknown as FakeBuffer;
const total = (buffers: readonly FakeBuffer[]): number => buffers.reduce((sum, b) => sum + b.size, 0);
const purpose = fc.constantFrom(...PURPOSES);
/** Few distinct sizes, so that buffers are often reused. */
const size = fc.oneof(fc.constantFrom(4, 256, 300, 1024, 1100), fc.integer({ min: 1, max: 5000 }));

type Step =
  | { do: "alloc"; bytes: number; purpose: Purpose }
  | { do: "free" | "use"; which: number }
  | { do: "submit" | "resetPeak" }
  | { do: "trim"; idle: number };

const steps: fc.Arbitrary<Step[]> = fc.array<Step>(
  fc.oneof(
    { weight: 4, arbitrary: fc.record({ do: fc.constant("alloc" as const), bytes: size, purpose }) },
    {
      weight: 5,
      arbitrary: fc.record({ do: fc.constantFrom("free" as const, "use" as const), which: fc.nat(1000) }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("submit" as const) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("resetPeak" as const) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("trim" as const), idle: fc.nat(3) }) },
  ),
  { maxLength: 120, size: "max" },
);

describe("the ledger under any sequence of calls", () => {
  test("is the sum of the buffers that exist; reuse and recorded work are safe", () => {
    fc.assert(
      fc.property(steps, fc.option(fc.integer({ min: 1000, max: 20_000 })), (list, budget) => {
        const { memory, existing, inRecording, faults } = fakeMemory(budget ?? undefined);
        const live: Allocation[] = [];
        let peak = 0;
        for (const step of list) {
          const chosen = "which" in step && live.length > 0 ? live[step.which % live.length]! : undefined;
          if (step.do === "alloc") alloc(step.bytes, step.purpose);
          else if (step.do === "free" && chosen) {
            memory.free(chosen);
            live.splice(live.indexOf(chosen), 1);
          } else if (step.do === "use" && chosen) {
            chosen.lastUse = memory.recordingNumber;
            inRecording.add(fakeOf(chosen));
          } else if (step.do === "submit") {
            inRecording.clear();
            memory.afterSubmit();
          } else if (step.do === "trim") memory.trim(step.idle);
          else if (step.do === "resetPeak") {
            memory.resetPeak();
            peak = memory.current;
          }
          invariants();
        }
        inRecording.clear();
        memory.destroyAll();
        expect(existing()).toEqual([]);
        expect(memory.current).toBe(0);
        expect(faults).toEqual([]);

        function alloc(bytes: number, purpose: Purpose): void {
          let a: Allocation;
          try {
            a = memory.alloc(bytes, purpose, `${purpose} of ${bytes}`);
          } catch (error) {
            expect(error).toBeInstanceOf(OutOfMemory);
            // Only what nobody can give back may stand in the way of a buffer.
            const pinned = existing().filter((b) => inRecording.has(b) || live.some((l) => fakeOf(l) === b));
            expect(total(pinned) + sizeClass(bytes)).toBeGreaterThan(budget!);
            return;
          }
          expect(live.map(fakeOf)).not.toContain(fakeOf(a));
          expect(a.bytes).toBeGreaterThanOrEqual(bytes);
          expect([a.purpose, fakeOf(a).purpose, fakeOf(a).size, a.state]).toEqual([
            purpose,
            purpose,
            a.bytes,
            "live",
          ]);
          live.push(a);
        }

        function invariants(): void {
          expect(faults).toEqual([]);
          const buffers = existing();
          expect(memory.current).toBe(total(buffers));
          for (const p of PURPOSES)
            expect(memory.currentByPurpose[p]).toBe(total(buffers.filter((b) => b.purpose === p)));
          expect(memory.byLabel().reduce((sum, row) => sum + row.bytes, 0)).toBe(memory.current);
          expect(live.every((a) => fakeOf(a).exists && a.state === "live")).toBe(true);
          peak = Math.max(peak, memory.current);
          expect(memory.peak).toBe(peak);
          expect(Object.values(memory.peakByPurpose).reduce((x, y) => x + y)).toBe(peak);
          for (const p of PURPOSES)
            expect(memory.peakOfEach[p]).toBeGreaterThanOrEqual(memory.peakByPurpose[p]);
          if (budget !== null) expect(memory.current).toBeLessThanOrEqual(budget);
        }
      }),
      { numRuns: 120 },
    );
  });
});

type PinStep = { do: "alloc" | "free" | "record" | "unrecord" | "use" | "submit" | "trim"; which: number };

const pinSteps: fc.Arbitrary<PinStep[]> = fc.array(
  fc.record({
    do: fc.constantFrom<PinStep["do"]>(
      ...([
        "alloc",
        "alloc",
        "alloc",
        "free",
        "free",
        "record",
        "unrecord",
        "use",
        "submit",
        "trim",
      ] as const),
    ),
    which: fc.nat(1000),
  }),
  { maxLength: 150, size: "max" },
);

describe("buffers that recordings hold", () => {
  test("are nobody else's and stay, whoever frees them, until the last recording lets go", () => {
    fc.assert(
      fc.property(pinSteps, (list) => {
        const { memory, existing, inRecording, faults } = fakeMemory();
        const live: Allocation[] = [];
        /** What each recording pins: some of what is live, and some that was freed while it was recorded. */
        const recordings: Allocation[][] = [];
        const sizes = [256, 300, 1000];
        const purposes = ["activations", "tables", "weights"] as const;
        for (const { do: what, which } of list) {
          if (what === "alloc") {
            const a = memory.alloc(sizes[which % 3]!, purposes[Math.floor(which / 3) % 3]!, "a");
            const taken = [...live, ...recordings.flat()].map(fakeOf);
            expect(taken).not.toContain(fakeOf(a));
            live.push(a);
          } else if (what === "free" && live.length > 0) {
            const [a] = live.splice(which % live.length, 1);
            memory.free(a!);
          } else if (what === "record" && live.length > 0) {
            const chosen = live.filter((_, i) => (which >> (i % 10)) & 1);
            // What was recorded before is submitted first.
            inRecording.clear();
            memory.afterSubmit();
            // A scratch tensor is freed while the recording is made, and pinned when it is done.
            const scratch = memory.alloc(300, "activations", "scratch");
            scratch.lastUse = memory.recordingNumber;
            memory.free(scratch);
            const pinned = [...chosen, scratch];
            for (const a of pinned) memory.pin(a);
            memory.endRecording();
            recordings.push(pinned);
          } else if (what === "unrecord" && recordings.length > 0) {
            const [pinned] = recordings.splice(which % recordings.length, 1);
            for (const a of pinned!) memory.unpin(a);
          } else if (what === "use" && live.length > 0) {
            const a = live[which % live.length]!;
            a.lastUse = memory.recordingNumber;
            inRecording.add(fakeOf(a));
          } else if (what === "submit") {
            inRecording.clear();
            memory.afterSubmit();
          } else if (what === "trim") memory.trim(which % 3);

          expect(faults).toEqual([]);
          expect(memory.current).toBe(total(existing()));
          for (const a of live) expect([a.state, fakeOf(a).exists]).toEqual(["live", true]);
          for (const a of recordings.flat()) {
            expect(fakeOf(a).exists).toBe(true);
            expect(a.state).toBe(live.includes(a) ? "live" : "held");
            expect(a.pins).toBe(recordings.filter((pinned) => pinned.includes(a)).length);
          }
        }
        inRecording.clear();
        for (const a of recordings.flat()) memory.unpin(a);
        for (const a of live) memory.free(a);
        memory.afterSubmit();
        memory.trim();
        expect([existing(), memory.current]).toEqual([[], 0]);
      }),
      { numRuns: 150 },
    );
  });

  test("weights freed while recorded work uses them, then pinned, are not destroyed at its submit", () => {
    const { memory, existing } = fakeMemory();
    const a = memory.alloc(1000, "weights", "w");
    a.lastUse = memory.recordingNumber;
    memory.free(a);
    memory.pin(a);
    memory.afterSubmit();
    expect([existing().length, a.state]).toEqual([1, "held"]);
    memory.unpin(a);
    expect([existing().length, a.state]).toEqual([0, "gone"]);
  });

  test("a buffer that is gone cannot be pinned, nor one let go of that nobody pins", () => {
    const { memory } = fakeMemory();
    const a = memory.alloc(1000, "weights", "w");
    expect(() => memory.unpin(a)).toThrow("memory: w (weights) is not pinned");
    memory.free(a);
    expect(() => memory.pin(a)).toThrow("memory: w (weights) is gone, and a recording wants it");
  });

  test("a held buffer is freed once, and after destroyAll letting go does no harm", () => {
    const { memory } = fakeMemory();
    const a = memory.alloc(1000, "activations", "x");
    memory.pin(a);
    memory.free(a);
    expect(() => memory.free(a)).toThrow("memory: x (activations) is freed twice");
    memory.destroyAll();
    expect(() => memory.unpin(a)).not.toThrow();
    expect(memory.current).toBe(0);
  });

  test("one that the device had no room for is destroyed, not pooled, when it is let go of", () => {
    const { memory, existing } = fakeMemory();
    const a = memory.alloc(1000, "activations", "x");
    memory.pin(a);
    memory.refuse(a.buffer);
    memory.free(a);
    expect(a.state).toBe("held");
    memory.unpin(a);
    expect([a.state, existing()]).toEqual(["gone", []]);
  });
});

describe("reuse", () => {
  test("a freed buffer comes back for the same purpose and size class, within one recording too", () => {
    const { memory, made } = fakeMemory();
    const first = memory.alloc(1000, "activations", "first");
    first.lastUse = memory.recordingNumber;
    memory.free(first);
    expect(memory.alloc(1000, "tables", "table").buffer).not.toBe(first.buffer);
    expect(memory.alloc(1020, "activations", "second").buffer).toBe(first.buffer);
    expect(memory.alloc(1000, "activations", "third").buffer).not.toBe(first.buffer);
    expect(made).toHaveLength(3);
  });

  test("a pooled buffer that nobody wants goes after two more submits", () => {
    const { memory, existing } = fakeMemory();
    const a = memory.alloc(1000, "activations", "a");
    a.lastUse = memory.recordingNumber;
    memory.free(a);
    memory.afterSubmit();
    memory.afterSubmit();
    expect(existing()).toHaveLength(1);
    memory.afterSubmit();
    expect(existing()).toHaveLength(0);
  });

  test.each(["weights", "kv"] as const)("%s are never pooled: they go when freed", (purpose) => {
    const { memory, existing } = fakeMemory();
    memory.free(memory.alloc(1000, purpose, "w"));
    expect(existing()).toHaveLength(0);
  });

  test.each(["weights", "kv"] as const)("%s freed while recorded work uses them go at its submit", (p) => {
    const { memory, existing } = fakeMemory();
    const a = memory.alloc(1000, p, "w");
    a.lastUse = memory.recordingNumber;
    memory.free(a);
    memory.trim(0);
    expect([existing().length, memory.current]).toEqual([1, 1000]);
    memory.afterSubmit();
    expect([existing().length, memory.current]).toEqual([0, 0]);
  });

  test("listeners hear of every buffer that goes, while it is still there", () => {
    const { memory } = fakeMemory();
    const heard: [number, boolean][] = [];
    memory.onDestroy((a) => heard.push([a.id, fakeOf(a).exists]));
    const a = memory.alloc(10, "weights", "a");
    const b = memory.alloc(10, "activations", "b");
    memory.free(a);
    memory.destroyAll();
    expect(heard).toEqual([
      [a.id, true],
      [b.id, true],
    ]);
  });
});

describe("refusals", () => {
  test("the message of a refused budget has what was asked for, the breakdown and what to do", () => {
    const { memory } = fakeMemory(3 * 2 ** 20);
    memory.alloc(2 ** 20, "weights", "wte.weight");
    memory.alloc(2 ** 20, "kv", "paged cache.k");
    const ask = () => memory.alloc(2 ** 21, "kv", "paged cache.v");
    expect(ask).toThrow(OutOfMemory);
    expect(ask).toThrow(
      "OOM: buffer paged cache.v (kv) 2097152 bytes; in use 2.0 MiB (weights 1.0 MiB, kv 1.0 MiB), budget 3.0 MiB; use ",
    );
    for (const flag of ["--max-seq-len", "--kv-pages", "--dtype f16", "--kv-dtype f16", "--memory"])
      expect(ask).toThrow(flag);
    expect([memory.current, memory.peak]).toEqual([2 ** 21, 2 ** 21]);
    memory.alloc(2 ** 20, "kv", "exactly what is left");
  });

  test("with nothing in use the breakdown says so", () => {
    expect(() => fakeMemory(100).memory.alloc(1000, "kv", "k")).toThrow("in use 0.0 MiB (nothing)");
  });

  test("pooled buffers make room before the budget refuses, but not those of recorded work", () => {
    const { memory } = fakeMemory(4096);
    const a = memory.alloc(4096, "activations", "a");
    a.lastUse = memory.recordingNumber;
    memory.free(a);
    expect(() => memory.alloc(4096, "kv", "k")).toThrow(OutOfMemory);
    memory.afterSubmit();
    expect(memory.alloc(4096, "kv", "k").bytes).toBe(4096);
  });

  test("a buffer that cannot be made leaves the ledger as it was", () => {
    const memory = new Memory(() => {
      throw new OutOfMemory("no");
    });
    expect(() => memory.alloc(1000, "weights", "w")).toThrow("no");
    expect([memory.current, memory.peak, memory.byLabel()]).toEqual([0, 0, []]);
  });

  test("freeing twice, and sizes that are none", () => {
    const { memory } = fakeMemory();
    const a = memory.alloc(8, "activations", "logits");
    memory.free(a);
    expect(() => memory.free(a)).toThrow("memory: logits (activations) is freed twice");
    for (const bytes of [0, -4, 1.5, Number.NaN, Number.POSITIVE_INFINITY])
      expect(() => memory.alloc(bytes, "kv", "k")).toThrow(
        `memory: k asks for ${bytes} bytes; wanted a positive integer`,
      );
  });
});

describe("reports", () => {
  test("bytes by label, largest first; pooled ones under a label of their own", () => {
    const { memory } = fakeMemory();
    memory.alloc(512, "kv", "k");
    memory.alloc(512, "kv", "k");
    memory.alloc(2048, "weights", "wte");
    memory.free(memory.alloc(256, "activations", "x"));
    expect(memory.byLabel()).toEqual([
      { purpose: "weights", label: "wte", bytes: 2048, count: 1 },
      { purpose: "kv", label: "k", bytes: 1024, count: 2 },
      { purpose: "activations", label: "(free for reuse)", bytes: 256, count: 1 },
    ]);
  });

  test("a peak that starts anew from nothing is made of nothing", () => {
    const { memory } = fakeMemory();
    memory.free(memory.alloc(512, "kv", "k"));
    expect([memory.peak, memory.peakByPurpose.kv]).toEqual([512, 512]);
    memory.resetPeak();
    expect([memory.peak, memory.peakByPurpose.kv, memory.peakOfEach.kv]).toEqual([0, 0, 0]);
  });
});

describe("size classes", () => {
  const bytes = fc.oneof(fc.integer({ min: 1, max: 1 << 16 }), fc.integer({ min: 1, max: 2 ** 42 }));

  test("hold what was asked for and waste at most a quarter of it, past the smallest class", () => {
    fc.assert(
      fc.property(bytes, (n) => {
        const size = sizeClass(n);
        expect(size).toBeGreaterThanOrEqual(n);
        expect(size % 4).toBe(0);
        if (n > 256) expect((size - n) / n).toBeLessThanOrEqual(0.25);
        else expect(size).toBe(256);
      }),
    );
  });

  test("grow with the size, and a class is its own class", () => {
    fc.assert(
      fc.property(bytes, bytes, (a, b) => {
        expect(sizeClass(Math.min(a, b))).toBeLessThanOrEqual(sizeClass(Math.max(a, b)));
        expect(sizeClass(sizeClass(a))).toBe(sizeClass(a));
      }),
    );
  });

  test.each([
    [256, 256],
    [257, 320],
    [320, 320],
    [321, 384],
    [511, 512],
    [512, 512],
    [513, 640],
    [2 ** 30 - 1, 2 ** 30],
    [2 ** 30 + 1, 1.25 * 2 ** 30],
  ])("%i bytes take %i", (bytes, size) => {
    expect(sizeClass(bytes)).toBe(size);
  });
});
