import { expect, test } from "vitest";
import { type Dispatch, Recording } from "../../src/gpu/recording.ts";

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
    ...["pipeline p", "group 0 a", "dispatch 1,1,1"],
    "dispatch 2,1,1",
    ...["group 0 b", "dispatch 3,1,1"],
    ...["pipeline q", "dispatch 4,1,1"],
    ...["pipeline p", "group 0 a", "dispatch 5,1,1"],
  ];
  expect(encode(recording)).toEqual(expected);
  // Another pass knows nothing of the first: everything is set again.
  expect(encode(recording)).toEqual(expected);
});

test("an empty recording encodes nothing", () => {
  expect(encode(new Recording())).toEqual([]);
});
