import { afterEach, describe, expect, test } from "vitest";
import { DeviceLost } from "../../src/gpu/errors.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { dropRun, prepareRun, submitRun } from "../../src/gpu/replay.ts";
import { add } from "../../src/ops/add.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";

const gpu = await openTestGpu();

const from = (values: readonly number[], on = gpu) => Tensor.from(on, [values.length], values);
const floats = async (bytes: Promise<ArrayBuffer>) => [...new Float32Array(await bytes)];

/** A recording of two launches, whose results are freed at once, and its inputs. */
function twoLaunches(on = gpu) {
  const sum = from([0, 0, 0, 0], on);
  const one = from([1, 2, 3, 4], on);
  const recording = on.record(() => {
    const scratch = add(sum, one);
    add(scratch, one).free();
    scratch.free();
  });
  return { sum, one, recording };
}

describe("a recording", () => {
  test("runs when it is submitted and not before, as often as wanted", async () => {
    const a = from([1, 2, 3, 4]);
    let result: Tensor | undefined;
    const recording = gpu.record(() => {
      result = add(a, a);
    });
    gpu.write(result!, new Float32Array([7, 7, 7, 7]));
    expect([...(await result!.read())]).toEqual([7, 7, 7, 7]);
    expect(await floats(submitRun(gpu, prepareRun(gpu, recording, 1, result!, 0, 16)))).toEqual([2, 4, 6, 8]);
    gpu.write(a, new Float32Array([10, 20, 30, 40]));
    expect(await floats(submitRun(gpu, prepareRun(gpu, recording, 3, result!, 4, 8)))).toEqual([40, 60]);
    recording.free();
    for (const t of [a, result!]) t.free();
  });

  test("runs behind what was recorded before it, whenever it was prepared", async () => {
    const [a, b] = [from([1, 1, 1, 1]), from([5, 5, 5, 5])];
    let result: Tensor | undefined;
    const recording = gpu.record(() => {
      result = add(a, b);
    });
    const run = prepareRun(gpu, recording, 1, result!, 0, 16);
    gpu.write(b, new Float32Array([6, 6, 6, 6]));
    const before = add(result!, a);
    gpu.write(result!, new Float32Array([100, 100, 100, 100]));
    const after = add(result!, a);
    expect(await floats(submitRun(gpu, run))).toEqual([7, 7, 7, 7]);
    expect([...(await after.read())]).toEqual([101, 101, 101, 101]);
    recording.free();
    for (const t of [a, b, before, after, result!]) t.free();
  });

  test("counts its launches when it is prepared", () => {
    const { sum, one, recording } = twoLaunches();
    const before = gpu.dispatchCount;
    dropRun(gpu, prepareRun(gpu, recording, 5, sum, 0, 16));
    expect(gpu.dispatchCount - before).toBe(5 * recording.dispatches.length);
    recording.free();
    sum.free();
    one.free();
  });

  test("keeps the buffers of tensors that were freed: nobody else gets them", async () => {
    const a = from([1, 2, 3, 4]);
    let scratch: Tensor | undefined;
    let result: Tensor | undefined;
    const recording = gpu.record(() => {
      scratch = add(a, a);
      result = add(scratch, a);
      scratch.free();
    });
    const { allocation } = scratch!;
    expect([allocation.state, allocation.pins]).toEqual(["held", 1]);
    const others = Array.from({ length: 8 }, (_, i) => from([i, i, i, i]));
    expect(others.map((t) => t.allocation)).not.toContain(allocation);
    expect(await floats(submitRun(gpu, prepareRun(gpu, recording, 2, result!, 0, 16)))).toEqual([
      3, 6, 9, 12,
    ]);
    for (let i = 0; i < 8; i++) expect([...(await others[i]!.read())]).toEqual([i, i, i, i]);
    recording.free();
    expect([allocation.state, allocation.pins]).toEqual(["pooled", 0]);
    for (const t of [a, result!, ...others]) t.free();
  });

  test("cannot run once it was freed, or when a buffer is gone", () => {
    const w = Tensor.from(gpu, [4], [1, 2, 3, 4], { purpose: "weights" });
    const recording = gpu.record(() => add(w, w).free());
    const result = from([0]);
    const refused = "replay: the recording was freed, or a buffer that it uses is gone";
    recording.free();
    expect(() => prepareRun(gpu, recording, 1, result, 0, 4)).toThrow(refused);
    expect(() => recording.free()).toThrow("recording: freed twice");
    w.free();
    result.free();
  });

  test("the ledger is back where it started, runs dropped and in flight included", async () => {
    await expectLedgerUnchanged(gpu, async () => {
      const { sum, one, recording } = twoLaunches();
      dropRun(gpu, prepareRun(gpu, recording, 1, sum, 0, 16));
      const results = [1, 2, 3].map((n) => submitRun(gpu, prepareRun(gpu, recording, n, sum, 0, 16)));
      recording.free();
      sum.free();
      one.free();
      await Promise.all(results);
    });
  });
});

describe("on a device that is lost", () => {
  const opened: Gpu[] = [];
  afterEach(async () => {
    for (const on of opened.splice(0)) {
      await on.close();
      expect(on.memory.current).toBe(0);
    }
  });
  const openNull = async () => {
    const on = await Gpu.open({ backend: "null" });
    opened.push(on);
    return on;
  };
  const staging = (on: Gpu) =>
    on.memory.byLabel().filter((row) => row.purpose === "staging" && row.label !== "(free for reuse)");

  test("runs in flight end with DeviceLost, and give their staging buffers back", async () => {
    const on = await openNull();
    const { sum, recording } = twoLaunches(on);
    const results = [1, 2].map(() => submitRun(on, prepareRun(on, recording, 1, sum, 0, 16)));
    on.device.destroy();
    for (const end of await Promise.allSettled(results))
      expect(end).toMatchObject({ status: "rejected", reason: expect.any(DeviceLost) });
    expect(staging(on)).toEqual([]);
    recording.free();
  });

  test("a run that cannot be submitted throws, and is dropped", async () => {
    const on = await openNull();
    const { sum, recording } = twoLaunches(on);
    const run = prepareRun(on, recording, 1, sum, 0, 16);
    on.device.destroy();
    await on.device.lost;
    await expect(on.settle()).rejects.toThrow(DeviceLost);
    expect(() => submitRun(on, run)).toThrow(DeviceLost);
    expect(staging(on)).toEqual([]);
  });
});
