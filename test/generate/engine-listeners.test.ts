import { describe, expect, test } from "vitest";
import { Engine } from "../../src/generate/engine.ts";
import type { EngineEvent, EngineOptions, RequestOptions } from "../../src/generate/engine-types.ts";
import { type FakeDevice, fakeParts } from "./fake-device.ts";

// Listeners that do more than listen: they abort, submit, close and throw while the engine tells them something.

const GREEDY = { temperature: 0, seed: 0 };
const request = (options: Partial<RequestOptions> = {}): RequestOptions => ({
  prompt: [5, 6, 7],
  sampling: GREEDY,
  maxNewTokens: 4,
  ...options,
});

function open(options: EngineOptions = {}): { engine: Engine; device: FakeDevice } {
  const parts = fakeParts(options);
  return { engine: new Engine(parts), device: parts.device };
}

const throwAt = (type: EngineEvent["type"]) => (event: EngineEvent) => {
  if (event.type === type) throw new Error(`not this ${type}`);
};

describe("a listener may abort whom it is told of", () => {
  const types = ["submitted", "admitted", "token", "preempted", "finished", "aborted"] as const;
  const cases = types.flatMap((type) => (["recompute", "swap"] as const).map((how) => [type, how] as const));
  test.each(cases)("at %s, with %s", async (type, preemption) => {
    const { engine, device } = open({ kvPages: 8, watermark: 0, preemption });
    const told = new Map<number, EngineEvent["type"][]>();
    let left = 3;
    engine.on((event) => {
      if (event.type !== "step") told.set(event.id, [...(told.get(event.id) ?? []), event.type]);
      if (event.type === type && left-- > 0) engine.abort(event.id);
    });
    const sampling = { ...GREEDY, repetitionPenalty: 1.5 };
    const ids = [1, 1, 2, 1, 1].map((n, i) =>
      engine.submit(request({ prompt: [i, 1, 2], sampling, n, maxNewTokens: 50 })),
    );
    engine.abort(ids[4]!);
    await engine.run();
    // What ends a request is the last that is told of it.
    for (const id of ids)
      expect(told.get(id)!.filter((t) => t === "finished" || t === "aborted")).toEqual([
        told.get(id)!.at(-1),
      ]);
    expect(told.get(ids[4]!)!.at(-1)).toBe("aborted");
    expect(engine.open).toBe(0);
    expect(engine.space.usage()).toMatchObject({ reserved: 0, used: 0, logical: 0 });
    expect(device.openRows.size).toBe(0);
  });

  test("before its generate knows it", async () => {
    const { engine } = open();
    engine.on((event) => {
      if (event.type === "submitted" && event.id === 1) engine.abort(1);
    });
    const reasons: unknown[] = [];
    for await (const output of engine.generate([[1], [2], [3]], { ...GREEDY, maxNewTokens: 3 }))
      reasons[output.promptIndex] = output.completions[0]!.finishReason;
    expect(reasons).toEqual(["length", "aborted", "length"]);
  });
});

test("a listener may submit, and close", async () => {
  const { engine, device } = open();
  let more = 5;
  engine.on((event) => {
    if (event.type !== "finished") return;
    if (more-- > 0) engine.submit(request());
    else void engine.close();
  });
  engine.submit(request());
  await engine.run();
  expect(engine.metrics().finished).toBe(6);
  await engine.close();
  expect(device.freed).toBe(true);
});

describe("what a listener throws", () => {
  test("at submission takes the request back, and the next one comes", async () => {
    const { engine } = open();
    const off = engine.on(throwAt("submitted"));
    expect(() => engine.submit(request())).toThrow("not this submitted");
    expect(engine.open).toBe(0);
    off();
    engine.submit(request());
    await engine.run();
    expect(engine.metrics()).toMatchObject({ finished: 1, aborted: 1 });
  });

  test("in a step closes the engine", async () => {
    const { engine, device } = open();
    engine.on(throwAt("admitted"));
    engine.submit(request());
    await expect(engine.run()).rejects.toThrow("not this admitted");
    await engine.close();
    expect(device.freed).toBe(true);
  });

  test("while the engine closes comes after everything is aborted and given back", async () => {
    const { engine, device } = open();
    engine.on(throwAt("aborted"));
    engine.submit(request());
    engine.submit(request());
    await engine.step();
    await expect(engine.close()).rejects.toThrow("not this aborted");
    expect(engine.open).toBe(0);
    expect(device.freed).toBe(true);
  });
});
