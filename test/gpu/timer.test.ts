import { describe, expect, test } from "vitest";
import { NoAdapter } from "../../src/gpu/errors.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { timeEachDispatch, timeOnGpu, timeOnHost, timeRecording } from "../../src/gpu/timer.ts";
import { add } from "../../src/ops/add.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";

const gpu = await openTestGpu();
const canTime = gpu.features.has("timestamp-query");

describe.runIf(canTime)("time on the GPU", () => {
  test("is a finite time above nothing, and the timed work has its result", async () => {
    const x = Tensor.from(gpu, [40_000], new Float32Array(40_000).fill(1.5));
    let sum: Tensor | undefined;
    const seconds = await timeOnGpu(
      gpu,
      () => {
        sum = add(x, x);
      },
      20,
    );
    expect(seconds).toBeGreaterThan(0);
    expect(seconds).toBeLessThan(60);
    expect(new Set(await sum!.read())).toEqual(new Set([3]));
    x.free();
    sum!.free();
  });

  test("work recorded before is run first, and not timed with it", async () => {
    const x = Tensor.from(gpu, [4], [1, 2, 3, 4]);
    const earlier = add(x, x);
    let later: Tensor | undefined;
    await timeOnGpu(
      gpu,
      () => {
        later = add(earlier, x);
      },
      1,
    );
    expect([...(await later!.read())]).toEqual([3, 6, 9, 12]);
    for (const t of [x, earlier, later!]) t.free();
  });

  test("leaves no memory behind", async () => {
    await expectLedgerUnchanged(gpu, async () => {
      const x = Tensor.from(gpu, [4], [1, 2, 3, 4]);
      await timeOnGpu(gpu, () => add(x, x).free(), 2);
      x.free();
    });
  });
});

describe.runIf(canTime)("time of each dispatch", () => {
  /** Additions that each wait for the one before, as a recording that may run again. */
  const chain = (x: Tensor, length: number) => {
    const made: Tensor[] = [];
    const recording = gpu.record(() => {
      for (let i = 0; i < length; i++) made.push(add(made[i - 1] ?? x, x));
    });
    return { recording, made };
  };

  test("is one pass each, in order, from the beginning of the first, and the work has its result", async () => {
    const x = Tensor.from(gpu, [4], [1, 2, 3, 4]);
    const { recording, made } = chain(x, 5);
    const times = await timeEachDispatch(gpu, recording, 3);
    expect(times).toHaveLength(5);
    expect(times[0]!.begin).toBe(0);
    times.forEach(({ begin, end, seconds }, i) => {
      expect(seconds).toBeGreaterThanOrEqual(0);
      expect(end).toBeGreaterThanOrEqual(begin);
      if (i > 0) expect(begin).toBeGreaterThanOrEqual(times[i - 1]!.begin);
    });
    expect([...(await made[4]!.read())]).toEqual([6, 12, 18, 24]);
    expect(await timeRecording(gpu, recording, 2)).toBeGreaterThan(0);
    expect(await timeOnHost(gpu, recording)).toBeGreaterThan(0);
    recording.free();
    for (const t of [x, ...made]) t.free();
  });

  test("goes on where a query set is full", async () => {
    const x = Tensor.from(gpu, [4], [1, 2, 3, 4]);
    const { recording, made } = chain(x, 1);
    const many = { dispatches: new Array(2050).fill(recording.dispatches[0]!), encode() {} };
    const times = await timeEachDispatch(gpu, many, 1);
    expect(times).toHaveLength(2050);
    for (const i of [2047, 2048, 2049]) {
      expect(times[i]!.begin).toBeGreaterThanOrEqual(times[i - 1]!.begin);
      expect(times[i]!.end).toBeGreaterThanOrEqual(times[i]!.begin);
    }
    recording.free();
    for (const t of [x, ...made]) t.free();
  });

  test("of nothing is nothing, and leaves no memory behind", async () => {
    await expectLedgerUnchanged(gpu, async () => {
      expect(await timeEachDispatch(gpu, { dispatches: [], encode() {} }, 2)).toEqual([]);
      const x = Tensor.from(gpu, [4], [1, 2, 3, 4]);
      const { recording, made } = chain(x, 2);
      await timeEachDispatch(gpu, recording, 2);
      recording.free();
      for (const t of [x, ...made]) t.free();
    });
  });
});

test("without the feature timestamp-query it is refused by name", async () => {
  const lacking = Object.create(gpu, { features: { value: new Set() } }) as Gpu;
  const refused = timeOnGpu(lacking, () => {}, 1);
  await expect(refused).rejects.toThrow(
    `FEATURE: the timer needs timestamp-query, which ${gpu.info.description} lacks`,
  );
  await expect(refused).rejects.toBeInstanceOf(NoAdapter);
  const work = { dispatches: [], encode() {} };
  await expect(timeEachDispatch(lacking, work, 1)).rejects.toBeInstanceOf(NoAdapter);
  await expect(timeRecording(lacking, work, 1)).rejects.toBeInstanceOf(NoAdapter);
});

test("a device that goes while it is timed is DeviceLost, and close still empties the ledger", async () => {
  const doomed = await Gpu.open({ backend: "null" });
  const x = Tensor.from(doomed, [4], [1, 2, 3, 4]);
  const timing = timeOnGpu(doomed, () => add(x, x), 3);
  doomed.device.destroy();
  await expect(timing).rejects.toThrow("DEVICE_LOST");
  await doomed.close();
  expect(doomed.memory.current).toBe(0);
});
