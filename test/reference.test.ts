import { describe, expect, test } from "vitest";
import { nmse, worst } from "./numerics.ts";
import * as reference from "./reference.ts";

// The reference judges the kernels; here a pencil judges the reference.

describe("erf", () => {
  // Seventeen digits, as the C library and every table has them.
  test.each([
    [0, 0],
    [0.1, 0.1124629160182849],
    [0.5, 0.5204998778130465],
    [1, 0.8427007929497149],
    [2, 0.9953222650189527],
    [2.5, 0.999593047982555],
    [3, 0.9999779095030014],
    [3.5, 0.9999992569016276],
    [6, 1],
  ])("erf(%d) is %d", (x, y) => {
    expect(Math.abs(reference.erf(x) - y)).toBeLessThan(1e-15);
    expect(reference.erf(-x)).toBe(-reference.erf(x));
  });

  test.each([
    [3, 2.209049699858544e-5],
    [5, 1.5374597944280349e-12],
    [10, 2.088487583762545e-45],
  ])("erfc(%d) is %d to 14 digits", (x, y) => {
    expect(Math.abs(reference.erfc(x) / y - 1)).toBeLessThan(1e-14);
  });

  test("the two formulas agree where they meet", () => {
    expect(Math.abs(reference.erf(3 - 1e-12) - reference.erf(3))).toBeLessThan(1e-15);
  });
});

test("the two forms of GELU are within 5e-4 of each other and 0, x or -x/2 where that is known", () => {
  for (let x = -6; x <= 6; x += 0.25)
    expect(Math.abs(reference.geluTanh(x) - reference.geluErf(x))).toBeLessThan(5e-4);
  for (const form of [reference.geluTanh, reference.geluErf]) {
    expect(form(0)).toBe(0);
    expect(form(40)).toBe(40);
    expect(Math.abs(form(-40))).toBe(0);
  }
  expect(reference.geluErf(1)).toBeCloseTo(0.8413447460685429, 14);
  expect(reference.geluTanh(1)).toBeCloseTo(0.8411919906082768, 14);
});

test("layernorm of [1, 2, 3] is [-√1.5, 0, √1.5]", () => {
  const y = reference.layernorm([1, 2, 3], [1, 1, 2], [0, 5, 0], 0);
  expect(worst(y, [-Math.sqrt(1.5), 5, 2 * Math.sqrt(1.5)]).error).toBeLessThan(1e-15);
});

test("softmax of [0, ln 3] is [1/4, 3/4], row by row", () => {
  const y = reference.softmax([0, Math.log(3), 700, 700], 2);
  expect(worst(y, [0.25, 0.75, 0.5, 0.5]).error).toBeLessThan(1e-15);
});

test("argmax takes the first of equals and never a NaN", () => {
  expect(reference.argmax([1, 3, 3, Number.NaN, -7, -9, Number.NaN, Number.NaN, Number.NaN], 3)).toEqual([
    1, 1, 0,
  ]);
});

test("matmul, with bias, residual and the sum of magnitudes", () => {
  const { values, magnitudes, terms } = reference.matmul([1, -2], [3, 4, 5, 6], [10, 20], {
    residual: [-1, 1],
  });
  expect([...values]).toEqual([1 * 3 - 2 * 5 + 10 - 1, 1 * 4 - 2 * 6 + 20 + 1]);
  expect([...magnitudes]).toEqual([3 + 10 + 10 + 1, 4 + 12 + 20 + 1]);
  expect(terms).toBe(4);
  expect(reference.matmul([2], [3], [1], "gelu-erf").values[0]).toBe(reference.geluErf(7));
});

test("matmulTransposed is matmul with the transposed matrix", () => {
  const transposed = reference.matmulTransposed([1, -2, 0.5, 4], [3, 5, 4, 6, 7, 8], 2);
  expect([...transposed.values]).toEqual([
    ...reference.matmul([1, -2, 0.5, 4], [3, 4, 7, 5, 6, 8], [0, 0, 0]).values,
  ]);
});

test("attention: a token sees itself and what came before, in its own sequence", () => {
  // One head of one channel: token 0 sees the value 1 only; token 1 weighs 1 and 5 with softmax([0, ln 3]).
  const qkv = [9, 0, 0, 1, 0, 0, 1, 0, 0];
  const contexts = [
    { length: 2, fresh: 2, keys: [0, Math.log(3)], values: [1, 5] },
    { length: 3, fresh: 1, keys: [2, 2, 2], values: [3, 6, 9] },
  ];
  const y = reference.attention(qkv, contexts, 1, 1, 1);
  expect(worst(y, [1, 4, 6]).error).toBeLessThan(1e-14);
});

test("kvWrite puts each token's key and value into its slot and leaves the others", () => {
  const k = [0, 0, 0];
  const v = [0, 0, 0];
  reference.kvWrite([1, 2, 3, 4, 5, 6], [2, 0], k, v);
  expect([k, v]).toEqual([
    [5, 0, 2],
    [6, 0, 3],
  ]);
});

test("embedding, gatherRows and add", () => {
  expect([...reference.embedding([1, 0], [0, 0], [1, 2, 3, 4], [10, 20], 2)]).toEqual([13, 24, 11, 22]);
  expect([...reference.gatherRows([1, 2, 3, 4], [1, 1, 0], 2)]).toEqual([3, 4, 3, 4, 1, 2]);
  expect([...reference.add([1, 2], [3, 4])]).toEqual([4, 6]);
});

test("NMSE and the worst element", () => {
  expect(nmse([1, 2], [1, 4])).toBe(4 / 17);
  expect(nmse([0], [0])).toBe(0);
  expect(nmse([1], [0])).toBe(Number.POSITIVE_INFINITY);
  expect(worst([1, 2, 3], [1, 4, 2])).toEqual({ index: 1, error: 2 });
  expect(worst([1, Number.NaN, 3], [1, 4, 99]).index).toBe(1);
});
