import { expect, test } from "vitest";
import { Kernel } from "../src/gpu/kernel.ts";
import { Tensor } from "../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, openTestGpu, withGuards } from "./gpu-fixture.ts";
import { randomFloats, VALUES } from "./values.ts";

// What guards the kernels must itself be able to fail: here kernels are given wrong params on purpose.

const gpu = await openTestGpu();
const kernel = new Kernel("add");

/** A sum of [rows, cols] tensors with as many quads as we like. */
const addQuads = (rows: number, cols: number, quads: number, values = randomFloats(1, rows * cols)) =>
  withGuards(gpu, () => {
    const a = Tensor.from(gpu, [rows, cols], values);
    const y = Tensor.empty(gpu, [rows, cols]);
    kernel.run(gpu, { a, b: a, y }, { quads }, [2]);
    return y;
  });

test("a store past the end is found", async () => {
  expect((await addQuads(1, 64, 16)).values).toHaveLength(64);
  await expect(addQuads(1, 64, 17)).rejects.toThrow("guard word 0 after the tensor became");
});

test("an element that no kernel wrote is NaN", async () => {
  const { values } = await addQuads(1, 64, 15);
  expect(values.findIndex(Number.isNaN)).toBe(60);
});

test("a load past the end brings NaN into the result", async () => {
  const { values } = await withGuards(gpu, () => {
    const x = Tensor.from(gpu, [1, 64], randomFloats(2, 64));
    const norm = Tensor.from(gpu, [2, 64], randomFloats(3, 128));
    const y = Tensor.empty(gpu, [1, 64]);
    // One column more than there are: its quad is the guard's.
    const params = { cols: 65, quads: 16, inverse_cols: 1 / 65, epsilon: 1 };
    new Kernel("layernorm").run(gpu, { x, norm, y }, params, [1]);
    return y;
  });
  expect(values.every(Number.isNaN)).toBe(true);
});

test("padding that is not zero is found", async () => {
  const shifted = withGuards(gpu, () => {
    const a = Tensor.from(gpu, [1, 4], VALUES["±1e4"](1, 4, 3));
    const y = Tensor.empty(gpu, [1, 3]);
    kernel.run(gpu, { a, b: a, y }, { quads: 1 }, [1]);
    return y;
  });
  await expect(shifted).rejects.toThrow(/row 0: padding at column 3 is -?20000, wanted 0/);
});

test("a result that changes from call to call is found", async () => {
  let calls = 0;
  const changing = expectSameBits(() => Tensor.from(gpu, [1], [Math.floor(++calls / 20)]));
  await expect(changing).rejects.toThrow();
});

test("a tensor that is not freed is found", async () => {
  const leak = () => void Tensor.empty(gpu, [3]);
  const used = () => {
    const a = Tensor.from(gpu, [3], [1, 2, 3]);
    const y = Tensor.empty(gpu, [3]);
    kernel.run(gpu, { a, b: a, y }, { quads: 1 }, [1]);
    y.free();
  };
  await expect(expectLedgerUnchanged(gpu, leak)).rejects.toThrow();
  await expect(expectLedgerUnchanged(gpu, used)).rejects.toThrow();
});

test("the tensors of a call that throws are given back", async () => {
  await expectLedgerUnchanged(gpu, async () => {
    const failing = withGuards(gpu, () => {
      Tensor.empty(gpu, [5]);
      throw new Error("wrong call");
    });
    await expect(failing).rejects.toThrow("wrong call");
  });
  const spied = Tensor.empty(gpu, [5]);
  expect(spied.offset).toBe(0);
});
