import { describe, expect, test } from "vitest";
import { foldWorkgroups, Kernel } from "../../src/gpu/kernel.ts";
import { softmax } from "../../src/ops/softmax.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, openTestGpu, withGuards } from "../gpu-fixture.ts";
import { expectClose, TOLERANCE } from "../numerics.ts";
import * as reference from "../reference.ts";
import { randomFloats, VALUES, VALUES_NAMES } from "../values.ts";

const gpu = await openTestGpu();
const LOWEST_FLOAT = -3.4028234663852886e38;

// 64 threads stride over a row's columns.
const SHAPES = [
  { rows: 1, cols: 1, why: "a row of one is 1" },
  { rows: 3, cols: 3, why: "most threads idle, one element of padding" },
  { rows: 2, cols: 63, why: "one thread idle" },
  { rows: 1, cols: 64, why: "exactly one column a thread" },
  { rows: 15, cols: 65, why: "one column past it" },
  { rows: 16, cols: 769, why: "several columns a thread" },
  { rows: 1024, cols: 17, why: "many rows" },
  { rows: 2, cols: 50257, why: "GPT-2's vocabulary" },
];

const run = (rows: number, cols: number, x: Float32Array) =>
  withGuards(gpu, () => softmax(Tensor.from(gpu, [rows, cols], x)));

test.each(SHAPES)("[$rows, $cols]: $why", async ({ rows, cols }) => {
  const x = randomFloats(1, rows * cols);
  expectClose((await run(rows, cols, x)).values, reference.softmax(x, cols), TOLERANCE.softmax.f32);
});

test.each(VALUES_NAMES)("values: %s; rows sum to one", async (name) => {
  const x = VALUES[name](17, 769, 2);
  const y = await run(17, 769, x);
  expectClose(y.values, reference.softmax(x, 769), TOLERANCE.softmax.f32);
  for (let r = 0; r < 17; r++) {
    const sum = y.values.subarray(r * 769, (r + 1) * 769).reduce((a, b) => a + b);
    expect(Math.abs(sum - 1)).toBeLessThan(1e-5);
  }
});

test.each([-1e9, LOWEST_FLOAT])(
  "a row masked with %d to a single position is 1 there and 0 elsewhere",
  async (mask) => {
    const x = new Float32Array(3 * 65).fill(mask);
    for (const [r, c] of [
      [0, 0],
      [1, 64],
      [2, 37],
    ] as const)
      x[r * 65 + c] = 0.5;
    const y = await run(3, 65, x);
    expect([...y.values]).toEqual([...x].map((v) => (v === 0.5 ? 1 : 0)));
  },
);

test("a dispatch folded into two dimensions reaches every row and no more", async () => {
  const x = randomFloats(7, 5 * 65);
  const y = await withGuards(gpu, () => {
    const out = Tensor.empty(gpu, [5, 65]);
    const buffers = { x: Tensor.from(gpu, [5, 65], x), y: out };
    new Kernel("softmax").run(gpu, buffers, { rows: 5, cols: 65, stride: 68 }, [2, 3]);
    return out;
  });
  expectClose(y.values, reference.softmax(x, 65), TOLERANCE.softmax.f32);
});

test.each([
  [1, [1, 1]],
  [65_535, [65_535, 1]],
  [65_536, [32_768, 2]],
  [65_537, [32_769, 2]],
])("%d workgroups are dispatched as %j", (count, workgroups) => {
  expect(foldWorkgroups(count)).toEqual(workgroups);
});

describe("properties", () => {
  test("a shift by a power of two is not seen, to the bit", async () => {
    // Multiples of 1/1024 below 8: adding 4 is exact, and so are all differences to the maximum.
    const x = randomFloats(3, 4 * 65).map((v) => Math.round(v * 1024) / 1024);
    const shifted = x.map((v) => v + 4);
    expect((await run(4, 65, shifted)).bits).toEqual((await run(4, 65, x)).bits);
  });

  test("a row alone and the row in a batch are the same bits", async () => {
    const x = randomFloats(4, 5 * 769);
    const batch = await run(5, 769, x);
    const alone = await run(1, 769, x.slice(3 * 769, 4 * 769));
    expect(alone.values).toEqual(batch.values.slice(3 * 769, 4 * 769));
  });

  test("the same call 20 times gives the same bits", async () => {
    const x = Tensor.from(gpu, [3, 769], randomFloats(5, 3 * 769));
    await expectSameBits(() => softmax(x));
  });
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const x = Tensor.from(gpu, [4, 5], randomFloats(6, 20));
    softmax(x).free();
    x.free();
  });
});

test("a tensor that was freed is refused by name", () => {
  const x = Tensor.empty(gpu, [2, 3], { label: "logits" });
  const next = Tensor.empty(gpu, [2, 3]);
  x.free();
  next.free(); // the result takes this buffer, so x's stays free
  expect(() => softmax(x)).toThrow("softmax: uses logits, which was freed");
});
