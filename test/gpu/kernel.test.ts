import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { Gpu } from "../../src/gpu/gpu.ts";
import { foldWorkgroups, Kernel } from "../../src/gpu/kernel.ts";
import { Tensor } from "../../src/tensor.ts";

const gpu = await Gpu.open({ backend: "null" });
afterAll(() => gpu.close());

const add = new Kernel("add");
const x = Tensor.from(gpu, [4], [1, 2, 3, 4]);
const y = Tensor.empty(gpu, [4]);
const b = Tensor.empty(gpu, [4]);

describe("a call by the names that the shader declares", () => {
  const run = (buffers: object, params: object, options = {}) =>
    add.run(gpu, buffers as Record<string, Tensor>, params as Record<string, number>, [1], options);

  test("counts as one dispatch", async () => {
    const before = gpu.dispatchCount;
    run({ a: x, b, y }, { quads: 1 });
    expect(gpu.dispatchCount).toBe(before + 1);
    await gpu.finish();
  });

  test.each([
    ["a buffer too few", { a: x, y }, { quads: 1 }, {}, "kernel add: buffer b is missing"],
    ["a buffer too many", { a: x, b, y, z: x }, { quads: 1 }, {}, "kernel add: has no buffer z"],
    ["a param too few", { a: x, b, y }, {}, {}, "kernel add: param quads is missing"],
    ["a param too many", { a: x, b, y }, { quads: 1, rows: 2 }, {}, "kernel add: has no param rows"],
    [
      "a fraction for a u32",
      { a: x, b, y },
      { quads: 1.5 },
      {},
      "kernel add: param quads is 1.5, wanted u32",
    ],
    ["a negative u32", { a: x, b, y }, { quads: -1 }, {}, "kernel add: param quads is -1, wanted u32"],
    [
      "an override that is none",
      { a: x, b, y },
      { quads: 1 },
      { constants: { FAST: 1 } },
      "kernel add: has no override FAST",
    ],
    [
      "a part that is not offered",
      { a: x, b, y },
      { quads: 1 },
      { parts: ["storage-f16"] },
      'kernel add: no "// with" line offers the part storage-f16; it has none',
    ],
  ])("%s is refused", (_, buffers, params, options, message) => {
    const before = gpu.dispatchCount;
    expect(() => run(buffers, params, options)).toThrow(message);
    expect(gpu.dispatchCount).toBe(before);
  });

  test("a kernel that is not there says which file was wanted", () => {
    expect(() => new Kernel("no-such-kernel").source()).toThrow("no-such-kernel.wgsl");
    expect(() => new Kernel("../package").source()).toThrow('"../package" is not a shader\'s name');
  });

  test("the source is read once for each choice of parts", () => {
    const kernel = new Kernel("embedding");
    expect(kernel.source(["storage-f16"])).toBe(kernel.source(["storage-f16"]));
    expect(kernel.source(["storage-f16"])).not.toBe(kernel.source());
    expect(kernel.source().code).toBe(kernel.source(["storage-f32"]).code);
  });
});

describe("workgroups folded into two dimensions", () => {
  test("cover the count, keep to WebGPU's limit, and waste less than one row", () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.integer({ min: 1, max: 200_000 }), fc.integer({ min: 1, max: 2 ** 31 })),
        (count) => {
          const [columns, rows] = foldWorkgroups(count);
          expect(columns * rows).toBeGreaterThanOrEqual(count);
          expect(columns * rows - count).toBeLessThan(rows);
          expect(Math.max(columns, rows)).toBeLessThanOrEqual(65_535);
        },
      ),
    );
  });

  test.each([
    [1, [1, 1]],
    [65_535, [65_535, 1]],
    [65_536, [32_768, 2]],
    [131_071, [43_691, 3]],
  ])("%i is %j", (count, folded) => {
    expect(foldWorkgroups(count)).toEqual(folded);
  });
});
