import { afterAll, describe, expect, test } from "vitest";
import { Gpu } from "../../src/gpu/gpu.ts";
import { type Dispatch, Recording } from "../../src/gpu/recording.ts";
import { add } from "../../src/ops/add.ts";
import { Tensor } from "../../src/tensor.ts";

/** The calls that a pass receives, as text. */
function encode(recording: Recording): string[] {
  const calls: string[] = [];
  const pass = {
    setPipeline: (pipeline: unknown) => calls.push(`pipeline ${pipeline}`),
    setBindGroup: (index: number, group: unknown) => calls.push(`group ${index} ${group}`),
    dispatchWorkgroups: (...counts: number[]) => calls.push(`dispatch ${counts}`),
  };
  recording.encode(pass as unknown as GPUComputePassEncoder);
  return calls;
}

function dispatch(pipeline: string, bindGroup: string, x: number): Dispatch {
  return { label: "", pipeline, bindGroup, workgroups: [x, 1, 1] } as unknown as Dispatch;
}

test("dispatches are encoded in order; a pipeline or bind group that stays is set once", () => {
  const recording = new Recording();
  recording.add(dispatch("p", "a", 1));
  recording.add(dispatch("p", "a", 2));
  recording.add(dispatch("p", "b", 3));
  recording.add(dispatch("q", "b", 4));
  recording.add(dispatch("p", "a", 5));
  const expected = [
    ...["pipeline p", "group 0 a", "dispatch 1"],
    "dispatch 2",
    ...["group 0 b", "dispatch 3"],
    ...["pipeline q", "dispatch 4"],
    ...["pipeline p", "group 0 a", "dispatch 5"],
  ];
  expect(encode(recording)).toEqual(expected);
  // Another pass knows nothing of the first: everything is set again.
  expect(encode(recording)).toEqual(expected);
});

test("grids are encoded with as many dimensions as they have", () => {
  const recording = new Recording();
  for (const workgroups of [
    [2, 3, 4],
    [2, 1, 4],
    [2, 3, 1],
  ])
    recording.add({ ...dispatch("p", "a", 1), workgroups } as unknown as Dispatch);
  expect(encode(recording).slice(2)).toEqual(["dispatch 2,3,4", "dispatch 2,1,4", "dispatch 2,3"]);
});

test("an empty recording encodes nothing", () => {
  expect(encode(new Recording())).toEqual([]);
});

describe("a recording for replay", async () => {
  // Who holds which buffer is the host's business alone, so the null backend will do.
  const gpu = await Gpu.open({ backend: "null" });
  afterAll(() => gpu.close());
  const tensor = () => Tensor.from(gpu, [4], [1, 2, 3, 4]);

  test("pins every buffer once, also one that several launches use and the params", () => {
    const a = tensor();
    const recording = gpu.record(() => {
      for (let i = 0; i < 3; i++) add(a, a).free();
    });
    expect(recording.dispatches).toHaveLength(3);
    const all = new Set(recording.dispatches.flatMap((d) => d.allocations));
    // The input, the params, and one scratch that serves all three launches.
    expect([...all].map((x) => x.pins)).toEqual([1, 1, 1]);
    recording.free();
    expect([...all].map((x) => x.pins)).toEqual([0, 0, 0]);
    a.free();
  });

  test("two recordings may share buffers: they stay until the last is freed", () => {
    const a = tensor();
    const [one, other] = [0, 1].map(() => gpu.record(() => add(a, a).free()));
    const { allocation } = a;
    expect(allocation.pins).toBe(2);
    a.free();
    expect([allocation.state, one!.isLive, other!.isLive]).toEqual(["held", true, true]);
    one!.free();
    expect([allocation.state, allocation.pins, one!.isLive, other!.isLive]).toEqual(["held", 1, false, true]);
    other!.free();
    expect([allocation.state, allocation.pins, other!.isLive]).toEqual(["pooled", 0, false]);
    expect(() => other!.free()).toThrow("recording: freed twice");
  });

  test("what one recording keeps is no other's scratch", () => {
    const a = tensor();
    const scratchOf = () => {
      let scratch: Tensor | undefined;
      const recording = gpu.record(() => {
        scratch = add(a, a);
        scratch.free();
      });
      return { recording, allocation: scratch!.allocation };
    };
    const [one, other] = [scratchOf(), scratchOf()];
    expect(one.allocation).not.toBe(other.allocation);
    one.recording.free();
    // Free again, it serves the next.
    const third = scratchOf();
    expect(third.allocation).toBe(one.allocation);
    for (const { recording } of [other, third]) recording.free();
    a.free();
  });

  test("weights that are freed stay until it is freed; kept buffers outlast submits and trims", () => {
    const w = Tensor.from(gpu, [4], [1, 2, 3, 4], { purpose: "weights" });
    const recording = gpu.record(() => add(w, w).free());
    const kept = [...new Set(recording.dispatches.flatMap((d) => d.allocations))];
    w.free();
    for (let i = 0; i < 5; i++) gpu.memory.afterSubmit();
    gpu.trim();
    expect(kept.map((a) => a.state)).not.toContain("gone");
    expect(recording.isLive).toBe(true);
    recording.free();
    gpu.trim();
    expect(kept.map((a) => a.state)).toEqual(kept.map(() => "gone"));
  });

  test("what was recorded before is submitted first, and is no part of it", () => {
    const a = tensor();
    const before = add(a, a);
    const recording = gpu.record(() => add(a, a).free());
    expect(recording.dispatches).toHaveLength(1);
    // Nothing is left to submit: the body was not added to the recording in progress.
    expect(gpu.takeRecording().dispatches).toEqual([]);
    recording.free();
    before.free();
    a.free();
  });

  test("a submit inside would run it at once, and is refused; then nothing of it is left", () => {
    const a = tensor();
    let made: Tensor | undefined;
    expect(() =>
      gpu.record(() => {
        made = add(a, a);
        gpu.submit();
      }),
    ).toThrow("submit: not while a recording for replay is made");
    expect(made!.allocation.pins).toBe(0);
    expect(gpu.takeRecording().dispatches).toEqual([]);
    // Afterwards submits are as ever.
    add(a, a).free();
    gpu.submit();
    for (const t of [a, made!]) t.free();
  });

  test("a write to what it has used would overtake it, and is refused", () => {
    const a = tensor();
    expect(() =>
      gpu.record(() => {
        add(a, a).free();
        gpu.write(a, new Float32Array(4));
      }),
    ).toThrow("submit: not while a recording for replay is made");
    a.free();
  });

  test("a body that fails leaves nothing behind", () => {
    const a = tensor();
    expect(() =>
      gpu.record(() => {
        add(a, a).free();
        throw new Error("no such shape");
      }),
    ).toThrow("no such shape");
    expect([a.allocation.pins, gpu.takeRecording().dispatches]).toEqual([0, []]);
    a.free();
  });
});
