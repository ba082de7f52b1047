import { afterAll, describe, expect, test } from "vitest";
import { DARK, LIGHT } from "../../src/bench/chart-parts.ts";
import { chartSvg } from "../../src/bench/chart-svg.ts";
import { type ProfileOptions, profileModel } from "../../src/bench/profile.ts";
import { profileCharts, stagesOf } from "../../src/bench/profile-charts.ts";
import {
  type MeasuredDispatch,
  PROFILE_RESULTS,
  PROFILE_SCHEMA,
  type ProfileResults,
  profiledStep,
} from "../../src/bench/profile-results.ts";
import { withStep } from "../../src/bench/profile-steps.ts";
import { profileText } from "../../src/bench/profile-table.ts";
import { NoAdapter } from "../../src/gpu/errors.ts";
import type { Gpu } from "../../src/gpu/gpu.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";
import { TINY } from "../model/tiny.ts";
import { sampleMeasured } from "./sample-results.ts";

const PEAKS = {
  memory: { perSecond: 1e12, by: "add 1×1" },
  arithmetic: { perSecond: 1e13, by: "matmul 1×1" },
  failures: [],
};

/** Dispatch n of a made-up step: 5 µs, 1 µs apart. */
function made(n: number, kernel: string, stage: string, work: MeasuredDispatch["work"]): MeasuredDispatch {
  const shape = work ? "1×768×2304" : "1×1×1 workgroups";
  return { kernel, stage, shape, workgroups: [1, 1, 1], beginSeconds: n * 6e-6, seconds: 5e-6, work };
}

/** 1 µs by the memory peak, 0.1 by the arithmetic one. */
const MEMORY = { bytes: 1e6, flops: 1e6 };
/** 0.1 µs by the memory peak, 2 by the arithmetic one. */
const ARITHMETIC = { bytes: 1e5, flops: 2e7 };

const DISPATCHES = [
  made(0, "embedding", "embed", null),
  made(1, "matvec", "layer 0", MEMORY),
  made(2, "attention", "layer 0", ARITHMETIC),
  made(3, "matvec", "layer 1", MEMORY),
  made(4, "attention", "layer 1", ARITHMETIC),
  made(5, "matvec", "head", MEMORY),
];
const STEP = {
  contextLength: 100,
  newTokens: 1,
  gpuSeconds: 20e-6,
  hostSeconds: 90e-6,
  dispatches: DISPATCHES,
};
const decode = profiledStep({ name: "decode", ...STEP }, PEAKS, 2e-6);

function sampleProfile(
  steps = [decode, profiledStep({ name: "prefill", ...STEP }, PEAKS, 2e-6)],
): ProfileResults {
  const { options: _, runs: __, ...rest } = sampleMeasured();
  const { model, ...environment } = rest;
  const options = {
    kv: "paged",
    context: 100,
    promptLength: 128,
    pageSize: 16,
    repeat: 20,
    kernels: "auto",
  } as const;
  return {
    schema: PROFILE_SCHEMA,
    ...environment,
    model,
    options,
    peaks: PEAKS,
    emptyDispatchSeconds: 2e-6,
    steps,
  };
}

describe("what follows from a profiled step", () => {
  test("rates and the share of the peak that bounds them", () => {
    const [embedding, matvec, attention] = decode.dispatches;
    expect(embedding).toMatchObject({ bytes: null, bytesPerSecond: null, bound: null, shareOfPeak: null });
    expect(matvec).toMatchObject({ bound: "memory", shareOfPeak: expect.closeTo(0.2, 9) });
    expect(matvec!.bytesPerSecond).toBeCloseTo(2e11, 0);
    expect(attention).toMatchObject({ bound: "arithmetic", shareOfPeak: expect.closeTo(0.4, 9) });
  });

  test("kernels of one shape together", () => {
    expect(decode.kernels.map((k) => [k.kernel, k.calls])).toEqual([
      ["embedding", 1],
      ["matvec", 3],
      ["attention", 2],
    ]);
    expect(decode.kernels[1]).toMatchObject({ seconds: expect.closeTo(15e-6, 12), bytes: 3e6, flops: 3e6 });
    expect(decode.profiledSeconds).toBeCloseTo(30e-6, 12);
  });

  test("dispatch, memory, what arithmetic takes beyond it, and the rest, which sum to the step", () => {
    const { dispatchSeconds, memorySeconds, arithmeticSeconds, otherSeconds, untold } = decode.breakdown!;
    expect(dispatchSeconds).toBeCloseTo(12e-6, 12);
    expect(memorySeconds).toBeCloseTo(3.2e-6, 12);
    expect(arithmeticSeconds).toBeCloseTo(2 * 1.9e-6, 12);
    expect(dispatchSeconds + memorySeconds + arithmeticSeconds + otherSeconds).toBeCloseTo(20e-6, 12);
    expect(untold).toBe(1);
  });

  test("no share and no breakdown without a peak, no rate of a time that is 0", () => {
    const without = profiledStep({ name: "decode", ...STEP }, { ...PEAKS, arithmetic: null }, 2e-6);
    expect(without.breakdown).toBeNull();
    expect(without.dispatches[1]).toMatchObject({ bytes: 1e6, bound: null, shareOfPeak: null });
    const still = { ...STEP, dispatches: DISPATCHES.map((d) => ({ ...d, seconds: 0 })) };
    const [, matvec] = profiledStep({ name: "decode", ...still }, PEAKS, 2e-6).dispatches;
    expect(matvec).toMatchObject({ bytesPerSecond: null, shareOfPeak: null, bound: "memory" });
  });
});

describe("profile.json", () => {
  test("the schema takes the sample, keeps its order, and refuses what is wrong", () => {
    const results = sampleProfile();
    expect(JSON.stringify(PROFILE_RESULTS.parse(results))).toBe(JSON.stringify(results));
    for (const value of [
      { ...results, schema: "quire-profile/0" },
      { ...results, emptyDispatchSeconds: -1 },
      { ...results, steps: [{ ...decode, name: "encode" }] },
    ])
      expect(PROFILE_RESULTS.safeParse(value).success).toBe(false);
  });
});

describe("the text of a profile", () => {
  test("has a line for each kernel, the totals and where the time goes", () => {
    const text = profileText(sampleProfile());
    expect(text).toMatch(/^Decode step: one token that sees 100; 6 dispatches$/m);
    expect(text).toMatch(/^matvec +1×768×2304 +3 +5\.00 +15\.0 +50\.0 % +200 +200 +20\.0 % mem$/m);
    expect(text).toMatch(/^embedding +1×1×1 workgroups +1 +5\.00 +5\.00 +16\.7 % +– +– +–$/m);
    expect(text).toContain("each dispatch in its own pass, together: 30.0 µs");
    expect(text).toContain("the step in one pass: 20.0 µs on the GPU, 90.0 µs by the host's clock");
    expect(text).toContain(
      "where the 20.0 µs go: dispatch 12.0 µs (60 %), memory 3.20 µs (16 %), arithmetic 3.80 µs (19 %), latency and other 1.00 µs (5 %)",
    );
    expect(text).toContain("do not tell their work, which is in the rest: 1");
    expect(text).not.toContain("below zero");
    expect(text).toContain("no benchmark of any GPU");
  });

  test("says so when the rest is below zero, and when a peak is missing", () => {
    const fast = profiledStep({ name: "decode", ...STEP, gpuSeconds: 10e-6 }, PEAKS, 2e-6);
    expect(profileText(sampleProfile([fast]))).toContain("the rest is below zero");
    const unknown = profiledStep({ name: "decode", ...STEP }, { ...PEAKS, memory: null }, 2e-6);
    expect(profileText({ ...sampleProfile([unknown]), peaks: { ...PEAKS, memory: null } })).toMatch(
      /peak memory: +not measured[\s\S]*where the time goes: unknown/,
    );
  });
});

describe("the charts of a profile", () => {
  test("have a row for each part of the model", () => {
    expect(stagesOf(decode).map((s) => [s.name, s.dispatches.length])).toEqual([
      ["embed", 1],
      ["layer 0", 2],
      ["layer 1", 2],
      ["head", 1],
    ]);
    const [timeline] = profileCharts(sampleProfile(), LIGHT);
    const axes = timeline.option.yAxis as { data: string[] }[];
    expect(axes.map((a) => a.data)).toEqual(new Array(2).fill(["embed", "layer 0", "layer 1", "head"]));
    // A bar begins where the one before it ends, after a gap: 5 µs, 1, 5.
    type Series = { name: string; stack: string; data: (number | null)[] };
    const layer0 = (timeline.option.series as Series[])
      .filter((s) => s.stack === "panel 0" && s.data[1])
      .map((s) => [s.name, s.data[1]]);
    expect(layer0).toEqual([
      ["matvec", 5],
      ["", 1],
      ["attention", 5],
    ]);
  });

  test("are plain JSON and draw to SVG without a browser, also where nobody named a part", () => {
    const nameless = { ...STEP, dispatches: DISPATCHES.map((d) => ({ ...d, stage: "" })) };
    const others = sampleProfile([profiledStep({ name: "decode", ...nameless }, PEAKS, 2e-6)]);
    for (const results of [sampleProfile(), others])
      for (const look of [LIGHT, DARK])
        for (const chart of profileCharts(results, look)) {
          expect(JSON.parse(JSON.stringify(chart.option))).toEqual(chart.option);
          expect(chart.units).toHaveLength((chart.option.series as unknown[]).length);
          const svg = chartSvg(chart);
          expect(svg).toContain(`>${chart.title}</text>`);
          expect(svg).toContain(">matvec</text>");
          expect(svg).not.toMatch(/NaN|undefined|Infinity/);
        }
    expect(chartSvg(profileCharts(others, LIGHT)[0])).toContain(">(not named)</text>");
  });
});

const gpu = await openTestGpu();
const model = await Gpt2.load(gpu, TINY);
afterAll(() => model.free());

const OPTIONS: ProfileOptions = {
  kv: "paged",
  kvDtype: "f32",
  pageSize: 8,
  context: 9,
  promptLength: 5,
  repeat: 2,
};

describe.runIf(gpu.features.has("timestamp-query"))("profileModel", () => {
  test.each(["paged", "contiguous"] as const)("times every dispatch of both steps, %s", async (kv) => {
    const names: string[] = [];
    const onProgress = (_done: number, _total: number, name: string) => names.push(name);
    const { steps, peaks, emptyDispatchSeconds } = await profileModel(model, { ...OPTIONS, kv, onProgress });
    expect(names).toEqual(["peaks", "decode", "prefill", "done"]);
    expect(peaks.failures).toEqual([]);
    expect(emptyDispatchSeconds).toBeGreaterThan(0);
    const told = steps.map(({ name, contextLength, newTokens }) => [name, contextLength, newTokens]);
    expect(told).toEqual([
      ["decode", 9, 1],
      ["prefill", 5, 5],
    ]);
    for (const step of steps) {
      expect(step.dispatches.length).toBeGreaterThanOrEqual(3 + 5 * model.config.layers);
      expect(step.gpuSeconds).toBeGreaterThan(0);
      expect(step.hostSeconds).toBeGreaterThan(0);
      expect(step.breakdown).toMatchObject({ untold: 0 });
      const attention = step.kernels.find((k) => k.kernel.includes("attention"))!;
      expect(attention.shape).toBe(step.name === "decode" ? "1×9×3×16" : "5×5×3×16");
      expect(stagesOf(step).map((s) => s.name)).toEqual([
        "embed",
        ...Array.from({ length: model.config.layers }, (_, i) => `layer ${i}`),
        ...(step.name === "decode" ? ["head", "sample"] : ["head"]),
      ]);
    }
  });

  test("goes to the end of the context, and runs of a step all do the same", async () => {
    const { contextLength } = model.config;
    const context = { ...OPTIONS, context: contextLength, promptLength: contextLength };
    const { steps } = await profileModel(model, { ...context, repeat: 3 });
    expect(steps.map((s) => s.contextLength)).toEqual([contextLength, contextLength]);
  });

  test("gives everything back, also when it is told to stop", async () => {
    await expectLedgerUnchanged(gpu, async () => {
      await profileModel(model, { ...OPTIONS, repeat: 1 });
      const controller = new AbortController();
      const stopped = profileModel(model, {
        ...OPTIONS,
        signal: controller.signal,
        onProgress: (_done, _total, name) => name === "decode" && controller.abort(new Error("Ctrl-C")),
      });
      await expect(stopped).rejects.toThrow("Ctrl-C");
    });
  });

  test("a step whose measurement fails gives its buffers back", async () => {
    await expectLedgerUnchanged(gpu, async () => {
      for (const name of ["decode", "prefill"] as const)
        await expect(
          withStep(model, name, OPTIONS, async () => {
            throw new Error("no clock");
          }),
        ).rejects.toThrow("no clock");
    });
  });
});

test("a profile without timestamps is refused by name, before anything is measured", async () => {
  const lacking = Object.create(gpu, { features: { value: new Set() } }) as Gpu;
  const blind = new Gpt2(lacking, model.config, model.weights);
  await expect(profileModel(blind, OPTIONS)).rejects.toBeInstanceOf(NoAdapter);
});
