import { describe, expect, test } from "vitest";
import { Kernel } from "../../src/gpu/kernel.ts";
import { add } from "../../src/ops/add.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, openTestGpu, withGuards } from "../gpu-fixture.ts";
import { expectClose, scaledTo, TOLERANCE } from "../numerics.ts";
import * as reference from "../reference.ts";
import { randomFloats, VALUES, VALUES_NAMES } from "../values.ts";

const gpu = await openTestGpu();

// A workgroup adds 64 quads, 256 elements.
const SHAPES = [
  { shape: [1, 1], why: "one thread works, three of its four elements are padding" },
  { shape: [3, 3], why: "one element of padding in each row" },
  { shape: [1, 252], why: "one thread idle" },
  { shape: [1, 256], why: "exactly one workgroup" },
  { shape: [1, 257], why: "one thread past it" },
  { shape: [17, 65], why: "several workgroups, odd rows" },
  { shape: [5, 769], why: "GPT-2's width and one" },
  { shape: [1023, 3], why: "many short rows" },
  { shape: [2, 3, 63], why: "three axes" },
];

test.each(SHAPES)("a + b for $shape: $why", async ({ shape }) => {
  const length = shape.reduce((a, b) => a * b);
  const [a, b] = [randomFloats(1, length), randomFloats(2, length)];
  const y = await withGuards(gpu, () => add(Tensor.from(gpu, shape, a), Tensor.from(gpu, shape, b)));
  expectClose(y.values, reference.add(a, b), TOLERANCE.add.f32);
});

test.each(VALUES_NAMES)("values: %s", async (name) => {
  const [a, b] = [VALUES[name](17, 65, 3), randomFloats(4, 17 * 65)];
  const y = await withGuards(gpu, () => add(Tensor.from(gpu, [17, 65], a), Tensor.from(gpu, [17, 65], b)));
  const expected = reference.add(a, b);
  expectClose(y.values, expected, scaledTo(expected, TOLERANCE.add.f32));
});

describe("properties", () => {
  const a = Tensor.from(gpu, [17, 65], randomFloats(5, 17 * 65));
  const b = Tensor.from(gpu, [17, 65], randomFloats(6, 17 * 65));

  test("a + b and b + a are the same bits, and so is the same sum 20 times", async () => {
    await expectSameBits(() => add(a, b));
    let swap = false;
    await expectSameBits(() => {
      swap = !swap;
      return swap ? add(b, a) : add(a, b);
    }, 2);
  });

  test("zero adds nothing", async () => {
    const zeros = Tensor.from(gpu, [17, 65], new Float32Array(17 * 65));
    const y = add(a, zeros);
    expect(await y.read()).toEqual(await a.read());
    y.free();
    zeros.free();
  });

  test("a dispatch folded into two dimensions reaches every element", async () => {
    const [p, q] = [randomFloats(7, 1100), randomFloats(8, 1100)];
    const y = await withGuards(gpu, () => {
      const sum = Tensor.empty(gpu, [1, 1100]);
      const buffers = { a: Tensor.from(gpu, [1, 1100], p), b: Tensor.from(gpu, [1, 1100], q), y: sum };
      new Kernel("add").run(gpu, buffers, { quads: 275 }, [2, 3]);
      return sum;
    });
    expectClose(y.values, reference.add(p, q), TOLERANCE.add.f32);
  });
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const a = Tensor.from(gpu, [4, 5], randomFloats(9, 20));
    add(a, a).free();
    a.free();
  });
});

test("two shapes are refused", () => {
  const a = Tensor.from(gpu, [2, 3], new Float32Array(6));
  const b = Tensor.from(gpu, [3, 2], new Float32Array(6));
  expect(() => add(a, b)).toThrow("add: a is [2, 3] but b is [3, 2]; the shapes must be equal");
});
