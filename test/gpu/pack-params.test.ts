import { describe, expect, test } from "vitest";
import { loadKernel, packParams, parseKernel } from "../../src/gpu/wgsl.ts";

describe("packParams", () => {
  const fields = ["a: u32", "b: f32", "c: i32", "d: u32", "e: f32"];
  const source = (count: number) => ({
    ...loadKernel("softmax"),
    name: "k",
    ...parseKernel(
      "k",
      `struct Params { ${fields.slice(0, count).join(", ")} }
       @group(0) @binding(0) var<uniform> params: Params;
       @compute @workgroup_size(1) fn main() {}`,
    ),
  });
  const values = { a: 0xffffffff, b: 0.5, c: -7, d: 3, e: -0.25 };

  test("one word for each member in the struct's order, whatever the order of the values", () => {
    const { a, b, c, d, e } = values;
    const view = new DataView(packParams(source(5), { e, c, a, d, b }));
    expect(view.getUint32(0, true)).toBe(a);
    expect(view.getFloat32(4, true)).toBe(b);
    expect(view.getInt32(8, true)).toBe(c);
    expect(view.getUint32(12, true)).toBe(d);
    expect(view.getFloat32(16, true)).toBe(e);
  });

  test.each([
    [1, 16],
    [4, 16],
    [5, 32],
  ])("%i members take %i bytes, zero behind the last", (count, bytes) => {
    const given = Object.fromEntries(Object.entries(values).slice(0, count));
    const packed = packParams(source(count), given);
    expect(packed.byteLength).toBe(bytes);
    expect([...new Uint8Array(packed, count * 4)].every((byte) => byte === 0)).toBe(true);
  });

  test.each([
    [{ a: 1 }, "kernel k: param b is missing"],
    [{ a: 1.5, b: 0 }, "kernel k: param a is 1.5, wanted u32"],
    [{ a: -1, b: 0 }, "kernel k: param a is -1, wanted u32"],
    [{ a: 2 ** 32, b: 0 }, "kernel k: param a is 4294967296, wanted u32"],
    [{ a: Number.NaN, b: 0 }, "kernel k: param a is NaN, wanted u32"],
    [{ a: Number.POSITIVE_INFINITY, b: 0 }, "kernel k: param a is Infinity, wanted u32"],
    [{ a: 1, b: 0, z: 5 }, "kernel k: has no param z"],
  ])("%j is refused", (given: Record<string, number>, message) => {
    expect(() => packParams(source(2), given)).toThrow(message);
  });

  test("an i32 is an integer", () => {
    expect(() => packParams(source(3), { a: 1, b: 0, c: 0.5 })).toThrow(
      "kernel k: param c is 0.5, wanted i32",
    );
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])("an f32 is not %d", (b) => {
    expect(() => packParams(source(2), { a: 1, b })).toThrow("kernel k: param b");
  });
});
