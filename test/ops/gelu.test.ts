import { describe, expect, test } from "vitest";
import { Kernel } from "../../src/gpu/kernel.ts";
import { type GeluForm, gelu } from "../../src/ops/gelu.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, openTestGpu, withGuards } from "../gpu-fixture.ts";
import { expectClose, scaledTo, TOLERANCE } from "../numerics.ts";
import { geluErf, geluTanh } from "../reference.ts";
import { randomFloats, VALUES, VALUES_NAMES } from "../values.ts";

const gpu = await openTestGpu();

// A workgroup takes 64 quads, 256 elements.
const SHAPES = [
  { shape: [1, 1], why: "one thread works, three of its four elements are padding" },
  { shape: [1, 252], why: "one thread idle" },
  { shape: [1, 256], why: "exactly one workgroup" },
  { shape: [1, 257], why: "one thread past it" },
  { shape: [15, 63], why: "odd rows" },
  { shape: [5, 769], why: "several workgroups" },
  { shape: [2, 3, 65], why: "three axes" },
];

describe.each<{ form: GeluForm; formula: (x: number) => number }>([
  { form: "gelu-tanh", formula: geluTanh },
  { form: "gelu-erf", formula: geluErf },
])("$form", ({ form, formula }) => {
  const expected = (x: Float32Array) => Float64Array.from(x, formula);

  test.each(SHAPES)("$shape: $why", async ({ shape }) => {
    const x = randomFloats(
      1,
      shape.reduce((a, b) => a * b),
    );
    const y = await withGuards(gpu, () => gelu(Tensor.from(gpu, shape, x), form));
    expectClose(y.values, expected(x), TOLERANCE.gelu.f32);
  });

  test.each(VALUES_NAMES)("values: %s", async (name) => {
    const x = VALUES[name](17, 65, 2);
    const y = await withGuards(gpu, () => gelu(Tensor.from(gpu, [17, 65], x), form));
    expectClose(y.values, expected(x), scaledTo(expected(x), TOLERANCE.gelu.f32));
  });

  test("every curve and both tails, from -12 to 12", async () => {
    const x = Float32Array.from({ length: 2401 }, (_, i) => (i - 1200) / 100);
    const y = await withGuards(gpu, () => gelu(Tensor.from(gpu, [1, 2401], x), form));
    expectClose(y.values, expected(x), TOLERANCE.gelu.f32);
  });

  test("far out it is x on the right and 0 on the left, to within the last bit of x", async () => {
    const x = Float32Array.of(20, 300, 1e4, 1e12, -20, -300, -1e4, -1e12);
    const y = await withGuards(gpu, () => gelu(Tensor.from(gpu, [1, 8], x), form));
    for (let i = 0; i < 8; i++)
      expect(Math.abs(y.values[i]! - Math.max(x[i]!, 0))).toBeLessThanOrEqual(Math.abs(x[i]!) * 2 ** -24);
  });

  test("gelu(x) - gelu(-x) = x", async () => {
    const x = randomFloats(3, 256).map((v) => 4 * v);
    const right = await withGuards(gpu, () => gelu(Tensor.from(gpu, [1, 256], x), form));
    const left = await withGuards(gpu, () =>
      gelu(
        Tensor.from(
          gpu,
          [1, 256],
          x.map((v) => -v),
        ),
        form,
      ),
    );
    expectClose(
      right.values.map((v, i) => v - left.values[i]!),
      x,
      { nmse: 1e-12, maxAbs: 2e-6 },
    );
  });

  test("the same call 20 times gives the same bits", async () => {
    const x = Tensor.from(gpu, [17, 65], randomFloats(4, 17 * 65));
    await expectSameBits(() => gelu(x, form));
  });
});

test("a dispatch folded into two dimensions reaches every element", async () => {
  const x = randomFloats(5, 1100);
  const y = await withGuards(gpu, () => {
    const out = Tensor.empty(gpu, [1, 1100]);
    new Kernel("gelu").run(gpu, { x: Tensor.from(gpu, [1, 1100], x), y: out }, { quads: 275 }, [3, 2]);
    return out;
  });
  expectClose(y.values, Float64Array.from(x, geluTanh), TOLERANCE.gelu.f32);
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const x = Tensor.from(gpu, [4, 5], randomFloats(6, 20));
    gelu(x, "gelu-erf").free();
    x.free();
  });
});

test("a tensor that was freed is refused by name", () => {
  const x = Tensor.empty(gpu, [2, 3], { label: "hidden state" });
  const next = Tensor.empty(gpu, [2, 3]);
  x.free();
  next.free(); // the result takes this buffer, so x's stays free
  expect(() => gelu(x, "gelu-tanh")).toThrow("gelu: uses hidden state, which was freed");
});
