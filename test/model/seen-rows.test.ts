import { expect, test } from "vitest";
import { SeenRows } from "../../src/model/seen-rows.ts";
import { bitsOf, expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";

const gpu = await openTestGpu();

test("a row has the bits of its tokens, and none of whoever had it before", async () => {
  const seen = new SeenRows(gpu, 2, 70); // three words a row
  const first = seen.open([0, 31, 32, 69, 69]);
  const second = seen.open([1]);
  const rows = async () => {
    const bits = await bitsOf(seen.table);
    return [first, second].map((row) => [...bits.subarray(3 * row, 3 * row + 3)]);
  };
  expect(await rows()).toEqual([
    [0x80000001, 1, 32],
    [2, 0, 0],
  ]);
  seen.close(first);
  expect(seen.open([64])).toBe(first);
  expect(await rows()).toEqual([
    [0, 0, 1],
    [2, 0, 0],
  ]);
  seen.free();
});

test("no more rows than there are, and each closed once", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const seen = new SeenRows(gpu, 1, 70);
    const row = seen.open([]);
    expect(seen.isOpen(row)).toBe(true);
    expect(() => seen.open([])).toThrow("seen rows: all 1 are open; close one first");
    seen.close(row);
    expect(seen.isOpen(row)).toBe(false);
    expect(() => seen.close(row)).toThrow("seen rows: row 0 is not open");
    seen.free();
  });
});
