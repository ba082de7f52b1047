import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Gpu } from "../../src/gpu/gpu.ts";
import { Kernel } from "../../src/gpu/kernel.ts";
import { add } from "../../src/ops/add.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";

const gpu = await openTestGpu();

const from = (...values: number[]) => Tensor.from(gpu, [values.length], values);
const numbers = async (t: Tensor) => [...(await t.read())];
const freeAll = (...tensors: Tensor[]) => {
  for (const t of tensors) t.free();
};

describe("recorded work and writes", () => {
  test("a write does not overtake recorded work that reads the buffer", async () => {
    const a = from(1, 2, 3, 4);
    const before = add(a, a);
    gpu.write(a, new Float32Array([10, 20, 30, 40]));
    const after = add(a, a);
    expect(await numbers(before)).toEqual([2, 4, 6, 8]);
    expect(await numbers(after)).toEqual([20, 40, 60, 80]);
    freeAll(a, before, after);
  });

  test("a write does not overtake recorded work that writes the buffer", async () => {
    const a = from(1, 2, 3, 4);
    const sum = add(a, a);
    gpu.write(sum, new Float32Array([7, 7, 7, 7]));
    expect(await numbers(sum)).toEqual([7, 7, 7, 7]);
    freeAll(a, sum);
  });

  test("a buffer that is freed, reused and written in one recording keeps both lives apart", async () => {
    const a = from(1, 2, 3, 4);
    const doubled = add(a, a);
    const tripled = add(doubled, a);
    doubled.free();
    const b = from(100, 100, 100, 100);
    expect(b.allocation).toBe(doubled.allocation);
    const sum = add(tripled, b);
    expect(await numbers(tripled)).toEqual([3, 6, 9, 12]);
    expect(await numbers(sum)).toEqual([103, 106, 109, 112]);
    freeAll(a, tripled, b, sum);
  });

  test("weights that are freed while recorded work reads them live until it ran", async () => {
    const w = Tensor.from(gpu, [4], [1, 2, 3, 4], { purpose: "weights" });
    const sum = add(w, w);
    w.free();
    expect(gpu.memory.currentByPurpose.weights).toBe(16);
    expect(await numbers(sum)).toEqual([2, 4, 6, 8]);
    expect(gpu.memory.currentByPurpose.weights).toBe(0);
    sum.free();
  });

  test("any program of writes, sums, frees, flushes, submits and reads gives what a CPU gives", async () => {
    const step = fc.record({
      do: fc.constantFrom("make", "write", "add", "add", "add", "free", "flush", "submit", "read"),
      a: fc.nat(1000),
      b: fc.nat(1000),
      value: fc.integer({ min: -100, max: 100 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 60, size: "max" }), async (program) => {
        const live: { tensor: Tensor; expected: Float32Array }[] = [];
        const values = (value: number) => Float32Array.from({ length: 5 }, (_, i) => value + i);
        for (const { do: action, a, b, value } of program) {
          const [x, y] = [live[a % live.length], live[b % live.length]];
          if (!x || !y || action === "make")
            live.push({ tensor: from(...values(value)), expected: values(value) });
          else if (action === "write") {
            // Rows are padded to a multiple of four elements.
            gpu.write(x.tensor, new Float32Array([...values(value), 0, 0, 0]));
            x.expected = values(value);
          } else if (action === "add") {
            const expected = x.expected.map((v, i) => v + y.expected[i]!);
            live.push({ tensor: add(x.tensor, y.tensor), expected });
          } else if (action === "free") {
            x.tensor.free();
            live.splice(live.indexOf(x), 1);
          } else if (action === "flush") gpu.flush();
          else if (action === "submit") gpu.submit();
          else expect(await x.tensor.read()).toEqual(x.expected);
        }
        for (const { tensor, expected } of live) {
          expect(await tensor.read()).toEqual(expected);
          tensor.free();
        }
      }),
      { numRuns: 40 },
    );
  });
});

test("a flush leaves a recording for replay whole, and pooled buffers to who records on", async () => {
  const a = from(1, 2, 3, 4);
  const sum = add(a, a);
  gpu.flush();
  sum.free();
  const again = add(a, a);
  expect(again.allocation).toBe(sum.allocation);
  expect(await numbers(again)).toEqual([2, 4, 6, 8]);
  const recording = gpu.record(() => {
    const inner = add(a, again);
    gpu.flush();
    inner.free();
  });
  expect(recording.dispatches).toHaveLength(1);
  recording.free();
  freeAll(a, again);
});

describe("params", () => {
  const layernorm = new Kernel("layernorm");
  const MORE_THAN_ARE_KEPT = 4200;

  test("more distinct params than are kept: each dispatch still sees its own", async () => {
    const x = from(-1, 1, -1, 1);
    const norm = Tensor.from(gpu, [2, 4], [1, 1, 1, 1, 0, 0, 0, 0]);
    // Bindings begin at multiples of 256 bytes, so each result has 64 floats of room.
    const results = Tensor.empty(gpu, [MORE_THAN_ARE_KEPT, 64]);
    const epsilonOf = (i: number) => 1 + i / 16;
    const run = (i: number) => {
      const y = { allocation: results.allocation, offset: i * 256, bytes: 16 };
      const params = { cols: 4, quads: 1, inverse_cols: 1 / 4, epsilon: epsilonOf(i) };
      layernorm.run(gpu, { x, norm, y }, params, [1]);
    };
    for (let i = 1; i < MORE_THAN_ARE_KEPT; i++) run(i);
    // The first params were evicted long ago; their buffer now holds others.
    run(1);
    run(0);
    const values = await results.read();
    for (let i = 0; i < MORE_THAN_ARE_KEPT; i++)
      expect(values[i * 64 + 1]).toBeCloseTo(1 / Math.sqrt(1 + epsilonOf(i)), 5);
    const kept = gpu.memory.byLabel().find((row) => row.label === "params")!;
    expect(kept.count).toBeLessThanOrEqual(4096);
    freeAll(x, norm, results);
  });

  test("equal params share one buffer", async () => {
    const a = from(1, 2, 3);
    const sums = [add(a, a)];
    await gpu.finish();
    const tables = gpu.memory.currentByPurpose.tables;
    for (let i = 0; i < 10; i++) sums.push(add(a, a));
    expect(gpu.memory.currentByPurpose.tables).toBe(tables);
    freeAll(a, ...sums);
    await gpu.finish();
  });
});

describe("reading", () => {
  test("a part of a range, to the byte", async () => {
    const t = from(1, 2, 3, 4, 5, 6, 7, 8);
    expect([...new Float32Array(await gpu.read(t, 8, 12))]).toEqual([3, 4, 5]);
    expect((await gpu.read(t, 28)).byteLength).toBe(4);
    expect((await gpu.read(t, 4, 6)).byteLength).toBe(6);
    for (const [offset, bytes] of [
      [24, 12],
      [32, 4],
      [2, 4],
      [0, 0],
    ] as const)
      await expect(gpu.read(t, offset, bytes)).rejects.toThrow(
        `read: [${offset}, ${offset + bytes}) of 32 bytes`,
      );
    t.free();
  });

  test("several reads at once", async () => {
    const tensors = Array.from({ length: 8 }, (_, i) => from(i, i + 1));
    const sums = tensors.map((t) => add(t, t));
    const read = await Promise.all(sums.map((s) => s.read()));
    expect(read.map((values) => [...values])).toEqual(tensors.map((_, i) => [2 * i, 2 * i + 2]));
    freeAll(...tensors, ...sums);
  });

  test("a submit with nothing recorded does nothing", () => {
    gpu.submit();
    const number = gpu.memory.recordingNumber;
    gpu.submit();
    expect(gpu.memory.recordingNumber).toBe(number);
  });

  test("work and its results give all memory back", async () => {
    await expectLedgerUnchanged(gpu, async () => {
      const a = from(1, 2, 3);
      const sum = add(a, a);
      await sum.read();
      freeAll(a, sum);
    });
  });
});

describe("freed memory is not used again by the one who freed it", () => {
  test("read, write and dispatch refuse it, also when another tensor has its buffer by now", async () => {
    const a = from(1, 2, 3, 4);
    const freed = from(1, 2, 3, 4);
    freed.free();
    const heir = from(5, 6, 7, 8);
    expect(heir.allocation).toBe(freed.allocation);
    await expect(freed.read()).rejects.toThrow("read: tensor was freed");
    expect(() => gpu.write(freed, new Float32Array(4))).toThrow("write: tensor was freed");
    expect(() => add(a, freed)).toThrow("add: uses tensor, which was freed");
    expect(await numbers(heir)).toEqual([5, 6, 7, 8]);
    freeAll(a, heir);
    gpu.memory.trim();
  });

  test("a write past the end of a range is refused", () => {
    const a = from(1, 2, 3, 4);
    expect(() => gpu.write(a, new Float32Array(4), 4)).toThrow(
      "write: 16 bytes at 4 into tensor of 16 bytes",
    );
    a.free();
  });
});

describe("what a Gpu may use", () => {
  test("under `kernels: portable` no optional feature", async () => {
    const portable = await Gpu.open({
      adapter: gpu.info.software ? "software" : "auto",
      kernels: "portable",
    });
    for (const feature of portable.features) expect(portable.canUse(feature)).toBe(false);
    await portable.close();
    expect(gpu.canUse("no such feature")).toBe(false);
  });

  test("a budget is kept, and what it allowed still works", async () => {
    const small = await Gpu.open({ adapter: gpu.info.software ? "software" : "auto", memoryBudget: 4096 });
    const a = Tensor.from(small, [64], new Float32Array(64).fill(1));
    expect(() => Tensor.empty(small, [2000], { purpose: "kv", label: "paged cache.k" })).toThrow(
      "OOM: buffer paged cache.k (kv) 8000 bytes",
    );
    expect((await add(a, a).read())[0]).toBe(2);
    await small.close();
    expect(small.memory.current).toBe(0);
  });

  test("a kernel counts once for each dispatch", () => {
    const before = gpu.dispatchCount;
    const a = from(1);
    freeAll(add(a, a), add(a, a), a);
    expect(gpu.dispatchCount).toBe(before + 2);
  });
});
