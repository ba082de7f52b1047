import process from "node:process";
import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { BadInput } from "../../src/check.ts";
import { Engine } from "../../src/generate/engine.ts";
import type { EngineEvent, EngineOptions, RequestOptions } from "../../src/generate/engine-types.ts";
import { CONTEXT, type FakeDevice, fakeParts, tokenOf, VOCABULARY } from "./fake-device.ts";

// What an engine does around a model, on a device that has none.
//
//   QUIRE_FULL=1 npx vitest run test/generate/engine-life      10,000 requests

const REQUESTS = process.env.QUIRE_FULL === undefined ? 1_000 : 10_000;

const GREEDY = { temperature: 0, seed: 0 };
const PROMPT = [5, 6, 7];
const request = (options: Partial<RequestOptions> = {}): RequestOptions => ({
  prompt: PROMPT,
  sampling: GREEDY,
  maxNewTokens: 4,
  ...options,
});

function open(options: EngineOptions = {}): { engine: Engine; device: FakeDevice } {
  const parts = fakeParts(options);
  return { engine: new Engine(parts), device: parts.device };
}

/** Everything that the engine tells from now on. */
function record(engine: Engine): EngineEvent[] {
  const events: EngineEvent[] = [];
  engine.on((event) => events.push(event));
  return events;
}

const tokensOfSequence = (sequenceId: number, count: number) =>
  Array.from({ length: count }, (_, i) => tokenOf(sequenceId, i));

const expectEmpty = (engine: Engine) => {
  expect(engine.open).toBe(0);
  expect(engine.space.usage()).toMatchObject({ reserved: 0, used: 0, logical: 0 });
};

describe("requests", () => {
  test("are told from submission to end, in order and at times that do not go back", async () => {
    const { engine } = open();
    const events = record(engine);
    const id = engine.submit(request({ maxNewTokens: 2 }));
    await engine.run();
    expect(events.map(({ type }) => type)).toEqual([
      ...["submitted", "admitted", "token", "step", "token", "finished", "step"],
    ]);
    const times = events.map(({ time }) => time);
    expect(times).toEqual([...times].sort((a, b) => a - b));
    const finished = events.find((event) => event.type === "finished");
    expect(finished?.output).toMatchObject({
      id,
      promptTokens: 3,
      cachedTokens: 0,
      preemptions: 0,
      completions: [{ index: 0, tokens: tokensOfSequence(0, 2), text: "", finishReason: "length" }],
    });
    const { submitted, admitted, firstToken, finished: end } = finished!.output.times;
    expect(submitted <= admitted! && admitted! <= firstToken! && firstToken! < end!).toBe(true);
    expect(finished!.output.tokenTimes).toHaveLength(2);
    expectEmpty(engine);
  });

  test("steps say what they computed, and how long the host was busy", async () => {
    const { engine } = open({ async: false });
    const events = record(engine);
    for (let i = 0; i < 3; i++) engine.submit(request({ maxNewTokens: 2, prompt: [i, 1, 2, 3] }));
    await engine.run();
    const steps = events.flatMap((event) => (event.type === "step" ? [event.step] : []));
    expect(steps.map(({ step, tokens, sampled }) => [step, tokens, sampled])).toEqual([
      [0, 12, 3],
      [1, 3, 3],
    ]);
    expect(steps[0]).toMatchObject({ running: 3, waiting: 0, preempted: 0 });
    expect(steps[0]!.kv).toEqual({ total: 512, reserved: 48, used: 12, logical: 12 });
    // All three end with it, and had their places while it ran.
    expect(steps[1]).toMatchObject({ running: 3, kv: { total: 512, reserved: 48, used: 15, logical: 15 } });
    for (const { seconds, hostSeconds } of steps) expect(hostSeconds < seconds && hostSeconds > 0).toBe(true);
  });

  test("metrics count them, and their latencies", async () => {
    const { engine } = open();
    expect(engine.metrics()).toMatchObject({ timeToFirstToken: undefined, interTokenTime: undefined });
    engine.submit(request({ n: 3 }));
    const unwanted = engine.submit(request());
    await engine.step();
    expect(engine.metrics()).toMatchObject({ running: 2, waiting: 0, kvUsage: expect.closeTo(4 / 32, 1) });
    engine.abort(unwanted);
    await engine.run();
    expect(engine.metrics()).toMatchObject({
      running: 0,
      kvUsage: 0,
      finished: 1,
      aborted: 1,
      timeToFirstToken: { count: 2 },
      interTokenTime: { count: 9 },
    });
  });

  test("of a tokenizer get its text, and stop strings find it", async () => {
    const words = { push: (id: number) => `${id} `, end: () => "" };
    const { engine } = open();
    const events = record(engine);
    const stop = ` ${tokenOf(0, 2)} `;
    engine.submit(request({ maxNewTokens: 9, stops: [stop], textStream: () => words }));
    await engine.run();
    const texts = events.flatMap((event) => (event.type === "token" ? [event.text] : []));
    const finished = events.find((event) => event.type === "finished");
    expect(finished?.output.completions[0]).toMatchObject({ finishReason: "stop" });
    expect(texts.join("")).toBe(finished?.output.completions[0]?.text);
  });

  test.each<[Partial<RequestOptions>, RegExp]>([
    [{ prompt: [] }, /^the prompt is empty/],
    [{ prompt: [1, VOCABULARY] }, /^prompt: token id 100 is out of vocabulary \(0..99\)$/],
    [{ prompt: [-1] }, /^prompt: token id -1/],
    [{ prompt: [1.5] }, /1.5, which is not a token id/],
    [{ prompt: new Array(CONTEXT).fill(1) }, /leaves no room for a new one/],
    [{ maxNewTokens: 0 }, /^maxNewTokens is 0/],
    [{ n: 0 }, /^n is 0/],
    [{ n: 257 }, /^n is 257, and at most 256 sequences run at once/],
    [{ n: 30, maxNewTokens: 60 }, /^30 sequences of up to 62 tokens can need 120 pages .*, and there are 32/],
    [{ sampling: { temperature: -1, seed: 0 } }, /^temperature is -1/],
    [{ stops: ["x"] }, /^stop strings need text/],
    [{ beams: 2, sampling: { temperature: 1, seed: 0 } }, /^temperature is 1; it must be 0 with beams/],
  ])("that can never run are refused at once: %j", (options, message) => {
    const { engine } = open();
    expect(() => engine.submit(request(options))).toThrow(BadInput);
    expect(() => engine.submit(request(options))).toThrow(message);
    expectEmpty(engine);
  });

  test("a repetition penalty takes a row of tokens seen for each sequence, and gives it back", async () => {
    const { engine, device } = open();
    const penalty = { sampling: { ...GREEDY, repetitionPenalty: 1.5 }, n: 3 };
    let most = 0;
    device.onLaunch = ({ samples }) => {
      most = Math.max(most, device.openRows.size);
      expect(new Set(samples.map(({ seen }) => seen)).size).toBe(samples.length);
    };
    engine.submit(request(penalty));
    const id = engine.submit(request(penalty));
    await engine.step();
    engine.abort(id);
    await engine.run();
    expect(most).toBe(6);
    expect(device.openRows.size).toBe(0);
  });
});

describe("generate", () => {
  test("yields prompts as they are finished, and numbers their sequences one after another", async () => {
    const { engine } = open();
    const prompts = [PROMPT, [8], [9, 10]];
    const order: number[] = [];
    for await (const { promptIndex, completions } of engine.generate(prompts, {
      ...GREEDY,
      maxNewTokens: 3,
      n: 2,
    })) {
      order.push(promptIndex);
      expect(completions.map(({ tokens }) => tokens)).toEqual([
        tokensOfSequence(2 * promptIndex, 3),
        tokensOfSequence(2 * promptIndex + 1, 3),
      ]);
    }
    expect(order).toEqual([0, 1, 2]);
    expectEmpty(engine);
  });

  test("several loops at once share the steps", async () => {
    const { engine, device } = open({ async: false });
    const loop = async (seed: number) => {
      const outputs = [];
      for await (const output of engine.generate([PROMPT, PROMPT], {
        ...GREEDY,
        maxNewTokens: 8,
        sequenceId: seed,
      }))
        outputs[output.promptIndex] = output.completions[0]!.tokens;
      return outputs;
    };
    const results = await Promise.all([10, 20, 30].map(loop));
    expect(results).toEqual([10, 20, 30].map((id) => [tokensOfSequence(id, 8), tokensOfSequence(id + 1, 8)]));
    expect(device.launches).toBe(8);
  });

  test("a loop that is left early aborts its own rest, and nobody else's", async () => {
    const { engine } = open();
    const events = record(engine);
    const other = engine.submit(request({ maxNewTokens: 20 }));
    for await (const output of engine.generate([[1], [2]], { ...GREEDY, maxNewTokens: 3, sequenceId: 5 })) {
      expect(output.promptIndex).toBe(0);
      break;
    }
    for await (const { promptIndex } of engine.generate([[1, 2], [3]], {
      ...GREEDY,
      maxNewTokens: 9,
      stops: [],
    })) {
      expect(promptIndex).toBe(0);
      break;
    }
    const loop = engine.generate([[1], [2]], { ...GREEDY, maxNewTokens: 9 });
    const first = loop.next();
    await engine.step();
    await engine.step();
    engine.abort(6);
    expect((await first).value).toMatchObject({ promptIndex: 1, completions: [{ finishReason: "aborted" }] });
    await loop.return();
    await engine.run();
    const ends = events.flatMap((e) =>
      e.type === "finished" || e.type === "aborted" ? [[e.type, e.id]] : [],
    );
    // The second prompts of the first loops end with the first ones, and are over before anybody leaves.
    expect(ends).toEqual([
      ...[1, 2, 3, 4].map((id) => ["finished", id]),
      ["aborted", 6],
      ["aborted", 5],
      ["finished", other],
    ]);
    expectEmpty(engine);
  });

  test("the signal aborts the rest, which comes as far as it got", async () => {
    const { engine } = open({ async: false });
    const controller = new AbortController();
    engine.on((event) => {
      if (event.type === "step" && event.step.step === 4) controller.abort();
    });
    const outputs = [];
    const options = { ...GREEDY, maxNewTokens: 40 };
    for await (const { completions } of engine.generate([[1], [2]], options, controller.signal))
      outputs.push(completions[0]!);
    expect(outputs.map(({ finishReason, tokens }) => [finishReason, tokens])).toEqual([
      ["aborted", tokensOfSequence(0, 5)],
      ["aborted", tokensOfSequence(1, 5)],
    ]);
    expectEmpty(engine);
  });

  test("refuses a prompt that cannot be before anything runs", async () => {
    const { engine, device } = open();
    const refused = engine.generate([[1], []], { ...GREEDY, maxNewTokens: 3 });
    await expect(refused.next()).rejects.toThrow(/^the prompt is empty/);
    const text = engine.generate(["a text"], { ...GREEDY, maxNewTokens: 3 });
    await expect(text.next()).rejects.toThrow(
      /^prompt 0 is a text; give token ids, or open the engine with a tokenizer$/,
    );
    await engine.run();
    expect(device.launches).toBe(0);
    expectEmpty(engine);
  });
});

describe("failure and close", () => {
  test.each([false, true])(
    "a step that fails is told to all who wait; what was finished stays (async %s)",
    async (async) => {
      const { engine, device } = open({ async });
      const error = new Error("the device is lost");
      device.failure = { launch: 5, error };
      const seen: number[] = [];
      const loop = async (maxNewTokens: number) => {
        for await (const { completions } of engine.generate([[1]], { ...GREEDY, maxNewTokens }))
          seen.push(completions[0]!.tokens.length);
      };
      const loops = await Promise.allSettled([loop(2), loop(30), loop(40)]);
      expect(loops.map((l) => (l.status === "rejected" ? l.reason : "done"))).toEqual(["done", error, error]);
      expect(seen).toEqual([2]);
      await expect(engine.step()).rejects.toBe(error);
      expect(() => engine.submit(request())).toThrow(error);
      await engine.close();
      expect(device.freed).toBe(true);
    },
  );

  test("close aborts what is left, waits for the step in progress, and gives the device back once", async () => {
    const { engine, device } = open();
    const events = record(engine);
    const outputs: string[] = [];
    const loop = (async () => {
      for await (const { completions } of engine.generate([[1], [2]], { ...GREEDY, maxNewTokens: 40 }))
        outputs.push(completions[0]!.finishReason!);
    })();
    await engine.step();
    await Promise.all([engine.close(), engine.close(), loop]);
    expect(outputs).toEqual(["aborted", "aborted"]);
    expect(events.filter(({ type }) => type === "aborted")).toHaveLength(2);
    expect(device.freed).toBe(true);
    expect(await engine.step()).toBe(false);
    expect(() => engine.submit(request())).toThrow("engine: it is closed");
  });

  test("pages that find no room on their way to the host are computed again", async () => {
    const { engine, device } = open({ kvPages: 8, preemption: "swap", watermark: 0 });
    device.refusedReads = 2;
    const prompts = Array.from({ length: 4 }, (_, i) => [i, 1, 2]);
    const outputs: (readonly number[])[] = [];
    for await (const output of engine.generate(prompts, { ...GREEDY, maxNewTokens: 50 }))
      outputs[output.promptIndex] = output.completions[0]!.tokens;
    expect(outputs).toEqual(prompts.map((_, i) => tokensOfSequence(i, 50)));
    const { swappedPages, recomputedTokens } = engine.metrics();
    expect([swappedPages > 0, recomputedTokens > 0]).toEqual([true, true]);
    expectEmpty(engine);
  });

  test("a listener that was taken off hears nothing more", async () => {
    const { engine } = open();
    const listener = vi.fn();
    const off = engine.on(listener);
    engine.submit(request());
    off();
    await engine.run();
    expect(listener).toHaveBeenCalledTimes(1);
  });
});

test(`${REQUESTS} requests, every fifth aborted at some time: pages, rows and requests return to where they started`, async () => {
  for (const preemption of ["recompute", "swap"] as const) {
    const { engine, device } = open({ kvPages: 40, preemption, maxSequences: 32 });
    const free = engine.space.usage().free;
    let finished = 0;
    let aborted = 0;
    engine.on((event) => {
      if (event.type === "finished") finished++;
      if (event.type === "aborted") aborted++;
    });
    const open_: number[] = [];
    for (let i = 0; i < REQUESTS; i++) {
      const prompt = Array.from(
        { length: 1 + ((i * 7) % 40) },
        (_, p) => (i % 3 === 0 ? p : p * i) % VOCABULARY,
      );
      const sampling = i % 10 === 0 ? { ...GREEDY, repetitionPenalty: 1.2 } : GREEDY;
      const id = engine.submit(
        request({ prompt, sampling, n: 1 + (i % 4), maxNewTokens: 1 + (i % 23), priority: i % 2 }),
      );
      open_.push(id);
      if (i % 3 === 0) await engine.step();
      // One that waits, runs, or is just over: then another one.
      if (i % 5 === 4) while (!engine.abort(open_.splice((i * 13) % open_.length, 1)[0]!));
    }
    await engine.run();
    expect([finished, aborted]).toEqual([REQUESTS - REQUESTS / 5, REQUESTS / 5]);
    const { preemptions } = engine.metrics();
    expect(preemptions).toBeGreaterThan(0);
    expectEmpty(engine);
    expect(engine.space.usage().free).toBe(free);
    expect(device.openRows.size).toBe(0);
    await engine.close();
  }
});

test("aborted at any time, a request leaves nothing, and the others get their tokens", async () => {
  const times = fc.array(fc.record({ step: fc.nat(12), which: fc.nat(5) }), { maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(times, fc.boolean(), async (aborts, async) => {
      const { engine } = open({ kvPages: 12, async, preemption: async ? "swap" : "recompute", watermark: 0 });
      const prompts = Array.from({ length: 6 }, (_, i) => new Array<number>(1 + 5 * i).fill(i));
      const gone = new Set<number>();
      const outputs = new Map<number, readonly number[]>();
      engine.on((event) => {
        if (event.type === "finished") outputs.set(event.id, event.output.completions[0]!.tokens);
      });
      const ids = prompts.map((prompt, i) =>
        engine.submit(request({ prompt, sequenceId: i, maxNewTokens: 20 })),
      );
      for (let step = 0; step < 13; step++) {
        for (const { which } of aborts.filter((abort) => abort.step === step))
          if (engine.abort(ids[which]!)) gone.add(which);
        await engine.step();
      }
      await engine.run();
      for (const [i, id] of ids.entries())
        expect(outputs.get(id)).toEqual(gone.has(i) ? undefined : tokensOfSequence(i, 20));
      expectEmpty(engine);
      await engine.close();
    }),
    { numRuns: 60 },
  );
});
