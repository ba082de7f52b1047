import { describe, expect, test } from "vitest";
import { NoAdapter } from "../../src/gpu/errors.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { timeOnGpu } from "../../src/gpu/timer.ts";
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

test("without the feature timestamp-query it is refused by name", async () => {
  const lacking = Object.create(gpu, { features: { value: new Set() } }) as Gpu;
  const refused = timeOnGpu(lacking, () => {}, 1);
  await expect(refused).rejects.toThrow(
    `FEATURE: the timer needs timestamp-query, which ${gpu.info.description} lacks`,
  );
  await expect(refused).rejects.toBeInstanceOf(NoAdapter);
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
