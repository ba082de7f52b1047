import { describe, expect, test } from "vitest";
import { Arena } from "../../src/gpu/arena.ts";
import { OutOfMemory } from "../../src/gpu/errors.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { prepareRun, submitRun } from "../../src/gpu/replay.ts";
import { add } from "../../src/ops/add.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";

const gpu = await openTestGpu();
const { memory } = gpu;
const bytesOf = (floats: number) => 4 * floats;

describe("buffers", () => {
  test("are taken by size, the smallest that fits, and given back by free", async () => {
    await expectLedgerUnchanged(gpu, () => {
      const arena = new Arena(memory, [1000, 40, 300], "scratch");
      const before = memory.currentByPurpose.activations;
      arena.within([], () => {
        const small = memory.alloc(36, "activations", "small");
        const middle = memory.alloc(41, "activations", "middle");
        const large = memory.alloc(4, "activations", "large");
        expect([small, middle, large].map((a) => a.bytes)).toEqual([40, 300, 1000]);
        memory.free(middle);
        expect(memory.alloc(300, "activations", "again")).toBe(middle);
        for (const a of [small, middle, large]) memory.free(a);
        expect(() => memory.free(small)).toThrow("is freed twice");
      });
      expect(memory.currentByPurpose.activations).toBe(before);
      expect(arena.bytes).toBe(1340);
      arena.free();
    });
  });

  test("are shared out by the plan, so that small work fits wherever the large work fits", async () => {
    await expectLedgerUnchanged(gpu, () => {
      // The large work needs 300, 300, 1000 at once, and gives back; the small one the same in tenths.
      const arena = new Arena(memory, [300, 300, 1000], "scratch");
      arena.within([30, 30, 100], () => {
        // By size alone these would have the largest buffer, and the last one none.
        const first = [28, 28].map((bytes) => memory.alloc(bytes, "activations", "first"));
        const wide = memory.alloc(99, "activations", "wide");
        expect(first.map((a) => a.bytes)).toEqual([300, 300]);
        expect(wide.bytes).toBe(1000);
        for (const a of [...first, wide]) memory.free(a);
      });
      expect(arena.bytes).toBe(1600);
      arena.free();
    });
  });

  test("are taken in the order that a plan has, and by size where the plan does not fit", async () => {
    await expectLedgerUnchanged(gpu, () => {
      const arena = new Arena(memory, [1000, 300, 300], "scratch");
      const take = (bytes: number) => memory.alloc(bytes, "activations", "work");
      const order = [2, 0, 2, 1];
      arena.within(
        [1000, 300, 300],
        () => {
          const first = take(100);
          const large = take(100);
          expect([large.bytes, first.bytes]).toEqual([1000, 300]);
          // The third is to have what the first still has, and the fourth is larger than its buffer.
          const second = take(100);
          expect([second.bytes, second === first]).toEqual([300, false]);
          memory.free(large);
          const fourth = take(400);
          expect(fourth).toBe(large);
          for (const a of [first, second, fourth]) memory.free(a);
        },
        order,
      );
      expect(arena.bytes).toBe(1600);
      arena.free();
    });
  });

  test("belong to who took them once the arena is dissolved; the others go back to the pool", async () => {
    await expectLedgerUnchanged(gpu, () => {
      const arena = new Arena(memory, [1000, 300], "scratch", { exact: false });
      expect(arena.bytes).toBe(1024 + 320);
      const kept = arena.within([], () => memory.alloc(10, "activations", "result"));
      arena.dissolve();
      const next = memory.alloc(1000, "activations", "next");
      expect(next.bytes).toBe(1024);
      expect(kept.state).toBe("live");
      memory.free(kept);
      expect(memory.alloc(300, "activations", "next")).toBe(kept);
      for (const a of [next, kept]) memory.free(a);
    });
  });

  test("grow in number where nothing fits, and stay", async () => {
    await expectLedgerUnchanged(gpu, () => {
      const arena = new Arena(memory, [100], "scratch");
      for (let i = 0; i < 2; i++)
        arena.within([], () => {
          const both = [80, 120].map((bytes) => memory.alloc(bytes, "activations", "work"));
          expect(both.map((a) => a.bytes)).toEqual([100, 120]);
          for (const a of both) memory.free(a);
        });
      expect(arena.bytes).toBe(220);
      arena.free();
    });
  });

  test("other purposes, and work outside, do not come from the arena", async () => {
    await expectLedgerUnchanged(gpu, () => {
      const arena = new Arena(memory, [256], "scratch");
      const inside = arena.within([], () => memory.alloc(8, "tables", "table"));
      const outside = memory.alloc(8, "activations", "outside");
      expect([inside.arena, outside.arena]).toEqual([undefined, undefined]);
      for (const a of [inside, outside]) memory.free(a);
      arena.free();
    });
  });
});

test("recordings within one arena have the same scratch, and each its own result", async () => {
  await expectLedgerUnchanged(gpu, async () => {
    const one = Tensor.from(gpu, [4], [1, 2, 3, 4]);
    const arena = new Arena(memory, [bytesOf(4), bytesOf(4)], "scratch");
    // Twice and three times `one`: the last sum is left in the arena, where it is until the other recording runs.
    let last: Tensor | undefined;
    const recordings = [2, 3].map((times) =>
      arena.within([], () =>
        gpu.record(() => {
          let sum = add(one, one);
          for (let i = 2; i < times; i++) {
            const more = add(sum, one);
            sum.free();
            sum = more;
          }
          last = sum;
          sum.free();
        }),
      ),
    );
    expect(arena.bytes).toBe(2 * bytesOf(4));
    const scratch = recordings.map((r) => r.dispatches.at(-1)!.allocations.at(-1)!);
    const { offset, bytes } = last!;
    for (const i of [0, 1, 0]) {
      const range = { allocation: scratch[i]!, offset, bytes };
      const run = prepareRun(gpu, recordings[i]!, 1, range, 0, bytes);
      expect([...new Float32Array(await submitRun(gpu, run))]).toEqual([1, 2, 3, 4].map((x) => (i + 2) * x));
    }
    // Freed in either order: a recording keeps what it uses.
    recordings[0]!.free();
    arena.free();
    expect(scratch[1]!.state).toBe("held");
    recordings[1]!.free();
    one.free();
  });
});

test("an arena that does not fit the budget leaves nothing behind", async () => {
  const small = await Gpu.open({ backend: "null", memoryBudget: 1000 });
  expect(() => new Arena(small.memory, [600, 600], "scratch")).toThrow(OutOfMemory);
  small.memory.trim();
  expect(small.memory.current).toBe(0);
  const arena = new Arena(small.memory, [600], "scratch");
  // Neither does one that cannot grow lose its order.
  expect(() => arena.within([], () => small.memory.alloc(601, "activations", "more"))).toThrow(OutOfMemory);
  expect(small.memory.alloc(8, "activations", "outside").arena).toBeUndefined();
  await small.close();
});
