import { expect, test } from "vitest";
import { STEP_ROWS, StepArrays } from "../../src/model/step-arrays.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";

const gpu = await openTestGpu();

/** Values that tell row and column: 100 · row + sequence. */
const valuesOf = (sequences: number) =>
  Object.fromEntries(
    STEP_ROWS.map((name, r) => [name, Array.from({ length: sequences }, (_, s) => 100 * r + s)]),
  ) as Record<(typeof STEP_ROWS)[number], number[]>;

test.each([
  [1, 64],
  [63, 64],
  [64, 64],
  [65, 128],
])("rows of %i sequences lie %i words apart, so that each can be bound alone", (sequences, stride) => {
  const arrays = new StepArrays(gpu, sequences);
  expect(arrays.stride).toBe(stride);
  expect(arrays.all.shape).toEqual([6, stride]);
  for (const name of STEP_ROWS) expect(arrays.row(name).offset % 256).toBe(0);
  arrays.all.free();
});

test.each([1, 3, 65])("each of %i sequences finds in a row what was written for it", async (sequences) => {
  const arrays = new StepArrays(gpu, sequences);
  const values = valuesOf(sequences);
  arrays.write(values);
  for (const name of STEP_ROWS) {
    const row = arrays.row(name);
    expect([row.shape, row.dtype]).toEqual([[sequences], "u32"]);
    expect([...(await row.readIntegers())], name).toEqual(values[name]);
  }
  const all = await arrays.all.readIntegers();
  STEP_ROWS.forEach((name, r) => {
    expect([...all.slice(r * arrays.stride, r * arrays.stride + sequences)], name).toEqual(values[name]);
  });
  arrays.all.free();
});

test("what is written for fewer sequences leaves zeros behind them", async () => {
  const arrays = new StepArrays(gpu, 3);
  arrays.write(valuesOf(3));
  arrays.write({ ...valuesOf(0), tokenIds: [7] });
  expect([...(await arrays.row("tokenIds").readIntegers())]).toEqual([7, 0, 0]);
  expect([...(await arrays.row("ring").readIntegers())]).toEqual([0, 0, 0]);
  arrays.all.free();
});

test("the ledger is back where it started: rows are views, and all of it is one table", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const before = gpu.memory.currentByPurpose.tables;
    const arrays = new StepArrays(gpu, 65);
    arrays.row("positions");
    expect(gpu.memory.currentByPurpose.tables - before).toBe(6 * 128 * 4);
    arrays.all.free();
  });
});
