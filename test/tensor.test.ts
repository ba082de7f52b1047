import { describe, expect, test } from "vitest";
import { Gpu } from "../src/gpu/gpu.ts";
import { add } from "../src/ops/add.ts";
import { product, rowStride, scope, shapeText, Tensor, tensorBytes } from "../src/tensor.ts";
import { bitsOf, expectLedgerUnchanged, openTestGpu } from "./gpu-fixture.ts";
import { randomFloats, stored } from "./values.ts";

const gpu = await openTestGpu();

test("rows begin at multiples of four elements", () => {
  expect([1, 2, 3, 4, 5, 8, 9, 768, 769, 50257].map(rowStride)).toEqual([
    4, 4, 4, 4, 8, 8, 12, 768, 772, 50260,
  ]);
});

test.each([
  { shape: [1], dtype: "f32", bytes: 16 },
  { shape: [5, 6], dtype: "f32", bytes: 5 * 8 * 4 },
  { shape: [5, 6], dtype: "f16", bytes: 5 * 8 * 2 },
  { shape: [2, 3, 9], dtype: "f16", bytes: 6 * 12 * 2 },
  { shape: [5, 6], dtype: "i8", bytes: 5 * 8 },
  { shape: [3, 1], dtype: "i8", bytes: 3 * 4 },
  { shape: [5, 6], dtype: "u32", bytes: 5 * 6 * 4 },
] as const)("$shape of $dtype takes $bytes bytes", ({ shape, dtype, bytes }) => {
  expect(tensorBytes(shape, dtype)).toBe(bytes);
  const tensor = Tensor.empty(gpu, shape, { dtype });
  expect(tensor.bytes).toBe(bytes);
  tensor.free();
});

test("product and shapeText", () => {
  expect(product([2, 3, 4])).toBe(24);
  expect(product([])).toBe(1);
  expect(shapeText([4, 768])).toBe("[4, 768]");
});

describe("from and read", () => {
  test.each([[1], [3], [4], [5], [1, 1], [3, 2], [2, 63], [2, 64], [3, 65], [2, 3, 5], [5, 769]])(
    "%j, %j: the numbers come back, and the padding is zero",
    async (...shape: (number | undefined)[]) => {
      const dimensions = shape.filter((n) => n !== undefined);
      const values = randomFloats(1, product(dimensions));
      for (const dtype of ["f32", "f16"] as const) {
        const tensor = Tensor.from(gpu, dimensions, values, { dtype });
        expect(await tensor.read()).toEqual(stored(values, dtype));
        const { rows, cols, stride } = tensor;
        const raw = await gpu.read(tensor);
        const padded = dtype === "f32" ? new Uint32Array(raw) : new Uint16Array(raw);
        expect(padded.length).toBe(rows * stride);
        for (let r = 0; r < rows; r++)
          expect([...padded.subarray(r * stride + cols, (r + 1) * stride)]).toEqual(
            new Array(stride - cols).fill(0),
          );
        tensor.free();
      }
    },
  );

  test("rows, cols and stride", () => {
    const tensor = Tensor.empty(gpu, [2, 3, 5]);
    expect([tensor.rows, tensor.cols, tensor.stride]).toEqual([6, 5, 8]);
    tensor.free();
  });

  test("integers come back whole, without padding", async () => {
    const values = [0, 1, 0xffffffff, 16_777_217, 7];
    const tensor = Tensor.from(gpu, [5], values, { dtype: "u32" });
    expect([...(await tensor.readIntegers())]).toEqual(values);
    expect([...(await bitsOf(tensor))]).toEqual(values);
    tensor.free();
  });

  test("f16 rounds to the nearest half: ties to even, infinity past the largest", async () => {
    const tensor = Tensor.from(gpu, [5], [1 + 2 ** -11, 1 + 3 * 2 ** -11, 65520, 2 ** -25, -2], {
      dtype: "f16",
    });
    expect([...(await tensor.read())]).toEqual([1, 1 + 2 ** -9, Number.POSITIVE_INFINITY, 0, -2]);
    tensor.free();
  });

  test("i8 takes bytes and gives them back; the padding is zero", async () => {
    const values = [-127, -1, 0, 1, 127, 5];
    const tensor = Tensor.from(gpu, [2, 3], values, { dtype: "i8" });
    expect([...(await tensor.read())]).toEqual(values);
    expect([...new Int8Array(await gpu.read(tensor))]).toEqual([-127, -1, 0, 0, 1, 127, 5, 0]);
    tensor.free();
  });

  test("a tensor is given its purpose and label in the ledger", () => {
    const tensor = Tensor.empty(gpu, [64], { purpose: "kv", label: "pages" });
    expect(gpu.memory.byLabel()).toContainEqual({ purpose: "kv", label: "pages", bytes: 256, count: 1 });
    tensor.free();
    expect(gpu.memory.byLabel().some((row) => row.label === "pages")).toBe(false);
  });

  test.each([[[]], [[0]], [[3, -1]], [[2.5]], [[Number.NaN, 2]]])("the shape %j is refused", (shape) => {
    expect(() => Tensor.empty(gpu, shape)).toThrow(
      `tensor: shape [${shape.join(", ")}] needs positive integers`,
    );
  });

  test("another count of values than the shape has is refused", () => {
    expect(() => Tensor.from(gpu, [2, 3], [1, 2, 3, 4, 5])).toThrow("tensor: 5 values for shape [2, 3]");
  });

  test("readIntegers is for integers", async () => {
    const tensor = Tensor.from(gpu, [2], [1, 2]);
    await expect(tensor.readIntegers()).rejects.toThrow("tensor: readIntegers of a f32 tensor");
    tensor.free();
  });
});

describe("free", () => {
  test("twice is refused by name", () => {
    const tensor = Tensor.empty(gpu, [3], { label: "query" });
    tensor.free();
    expect(() => tensor.free()).toThrow("tensor: query [3] is freed twice");
  });

  test("a freed tensor is not written to", () => {
    const tensor = Tensor.empty(gpu, [4], { label: "logits" });
    tensor.free();
    expect(() => gpu.write(tensor, new Float32Array(4))).toThrow("write: logits was freed");
  });

  test("work that was recorded before still sees the values", async () => {
    const a = Tensor.from(gpu, [4], [1, 2, 3, 4]);
    const y = add(a, a);
    a.free();
    const other = Tensor.from(gpu, [4], [9, 9, 9, 9]); // may take a's buffer
    expect([...(await y.read())]).toEqual([2, 4, 6, 8]);
    y.free();
    other.free();
  });
});

describe("scope", () => {
  const live = (tensor: Tensor) => tensor.allocation.state === "live";
  // Shapes of different size classes, so that no tensor here takes another's buffer.
  const make = (quads: number) => Tensor.empty(gpu, [1, 256 * quads]);

  test("frees what is made in it but for what it returns", async () => {
    let inner: Tensor | undefined;
    const result = scope(gpu, () => {
      inner = make(1);
      return make(2);
    });
    expect([live(inner!), live(result)]).toEqual([false, true]);
    result.free();
  });

  test("may return nothing", () => {
    let inner: Tensor | undefined;
    const result = scope(gpu, () => {
      inner = make(1);
      return undefined;
    });
    expect(result).toBeUndefined();
    expect(live(inner!)).toBe(false);
  });

  test("frees everything when it throws, and the scope around it goes on", () => {
    let inner: Tensor | undefined;
    let after: Tensor | undefined;
    const outer = scope(gpu, () => {
      expect(() =>
        scope(gpu, () => {
          inner = make(1);
          throw new Error("in between");
        }),
      ).toThrow("in between");
      expect(live(inner!)).toBe(false);
      after = make(2);
      return make(4);
    });
    expect([live(after!), live(outer)]).toEqual([false, true]);
    outer.free();
  });

  test("what a scope returns belongs to the scope around it", () => {
    let inner: Tensor | undefined;
    const outer = scope(gpu, () => {
      inner = scope(gpu, () => make(1));
      expect(live(inner)).toBe(true);
      return make(2);
    });
    expect([live(inner!), live(outer)]).toEqual([false, true]);
    outer.free();
  });

  test("a result may pass through several scopes", () => {
    const result = scope(gpu, () => scope(gpu, () => scope(gpu, () => make(1))));
    expect(live(result)).toBe(true);
    result.free();
  });

  test("leaves tensors alone that were made outside, returned or not", () => {
    const [kept, returned] = [make(1), make(2)];
    const result = scope(gpu, () => returned);
    expect(result).toBe(returned);
    expect([live(kept), live(returned)]).toEqual([true, true]);
    // Nor does the scope around take over what it did not see made.
    scope(gpu, () => {
      scope(gpu, () => returned);
      return undefined;
    });
    expect(live(returned)).toBe(true);
    kept.free();
    returned.free();
  });

  test("what was freed by hand is not freed again", () => {
    scope(gpu, () => {
      make(1).free();
      return undefined;
    });
  });

  test("does not see the tensors of another Gpu", async () => {
    const other = await Gpu.open({ backend: "null" });
    let theirs: Tensor | undefined;
    scope(gpu, () => {
      theirs = Tensor.empty(other, [4]);
      return undefined;
    });
    expect(live(theirs!)).toBe(true);
    await other.close();
  });

  test("the results are right although the memory in between was given back", async () => {
    const a = Tensor.from(gpu, [2, 5], randomFloats(2, 10));
    const y = scope(gpu, () => add(add(a, a), add(a, add(a, a))));
    expect(await y.read()).toEqual(
      (await a.read()).map((x) => Math.fround(Math.fround(2 * x) + Math.fround(x + Math.fround(2 * x)))),
    );
    a.free();
    y.free();
  });

  test("the ledger is back where it started", async () => {
    await expectLedgerUnchanged(gpu, () => {
      const a = Tensor.from(gpu, [2, 5], randomFloats(3, 10));
      scope(gpu, () => add(add(a, a), add(a, a))).free();
      a.free();
    });
  });
});

describe("a freed tensor whose buffer another one took", () => {
  const pair = () => {
    const stale = Tensor.empty(gpu, [3, 7], { label: "stale" });
    stale.free();
    const taker = Tensor.empty(gpu, [3, 7], { label: "taker" });
    return { stale, taker };
  };

  test("cannot be freed again", () => {
    const { stale, taker } = pair();
    expect(() => stale.free()).toThrow("[3, 7] is freed twice");
    expect(taker.allocation.state).toBe("live");
    taker.free();
  });

  test("is not freed by its scope, which would give away the other one's memory", () => {
    const taker = scope(gpu, () => pair().taker);
    expect(taker.allocation.state).toBe("live");
    taker.free();
  });

  test("is refused by the ops", () => {
    const { stale, taker } = pair();
    const a = Tensor.from(gpu, [3, 7], randomFloats(4, 21));
    expect(() => add(a, stale)).toThrow("which was freed");
    a.free();
    taker.free();
  });
});
