import { expect, test } from "vitest";
import { prepareRun, submitRun } from "../../src/gpu/replay.ts";
import { add } from "../../src/ops/add.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";

const gpu = await openTestGpu();
const from = (...values: number[]) => Tensor.from(gpu, [values.length], values);

test("several results in flight are each their own, in whatever order they are awaited", async () => {
  const [a, b] = [from(1, 2, 3, 4), from(0, 0, 0, 0)];
  let sum: Tensor | undefined;
  const recording = gpu.record(() => {
    sum = add(a, b);
  });
  // Each write is between the runs before and behind it.
  const results = [0, 10, 20, 30].map((n) => {
    gpu.write(b, new Float32Array([n, n, n, n]));
    return submitRun(gpu, prepareRun(gpu, recording, 1, sum!, 0, 16));
  });
  const arrived: number[] = [];
  results.forEach((result, i) => {
    result.then(() => arrived.push(i));
  });
  for (const i of [3, 1, 0, 2])
    expect([...new Float32Array(await results[i]!)]).toEqual([1, 2, 3, 4].map((x) => x + 10 * i));
  expect(arrived).toEqual([0, 1, 2, 3]);
  recording.free();
  for (const t of [a, b, sum!]) t.free();
});

test("reads and runs share staging buffers only one after the other", async () => {
  const tensors = [from(1, 1, 1, 1), from(2, 2, 2, 2), from(3, 3, 3, 3)];
  const all = await Promise.all(tensors.map((t) => t.read()));
  expect(all.map((values) => [...values])).toEqual([1, 2, 3].map((n) => [n, n, n, n]));
  const [one, other] = [gpu.readBack.target(16), gpu.readBack.target(16)];
  expect(one.staging).not.toBe(other.staging);
  gpu.readBack.drop(one);
  const third = gpu.readBack.target(12);
  expect(third.staging).toBe(one.staging);
  gpu.readBack.drop(other);
  gpu.readBack.drop(third);
  for (const t of tensors) t.free();
});

test.each([1, 2, 3, 5])("%i bytes are copied as whole words and come back as they are", async (bytes) => {
  const a = Tensor.from(gpu, [4], [0x04030201, 0x08070605, 0, 0], { dtype: "u32" });
  const target = gpu.readBack.target(bytes);
  const encoder = gpu.device.createCommandEncoder();
  gpu.readBack.copy(encoder, a, 0, target);
  gpu.device.queue.submit([encoder.finish()]);
  gpu.memory.afterSubmit();
  expect([...new Uint8Array(await gpu.readBack.result(target))]).toEqual([1, 2, 3, 4, 5].slice(0, bytes));
  a.free();
});

test("a dropped target is dropped once, however often that is said", () => {
  const target = gpu.readBack.target(16);
  gpu.readBack.drop(target);
  expect(() => gpu.readBack.drop(target)).not.toThrow();
});

test("the ledger is back where it started", async () => {
  const a = from(1, 2, 3, 4);
  await expectLedgerUnchanged(gpu, async () => {
    await Promise.all([a.read(), a.read()]);
  });
  a.free();
});
