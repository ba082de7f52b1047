import { describe, expect, test } from "vitest";
import { BadInput } from "../../src/check.ts";
import type { RequestOptions } from "../../src/generate/engine-types.ts";
import { Request } from "../../src/generate/request.ts";
import { Scheduler } from "../../src/generate/scheduler.ts";
import { PagedSpace } from "../../src/kv/page-space.ts";
import { FakeGpu } from "./fake-gpu.ts";

const CONTEXT = 20;

function request(rest: Partial<RequestOptions> = {}): Request {
  const sampling = { temperature: 0, seed: 1 };
  return new Request(3, { prompt: [5, 6, 7], maxNewTokens: 4, sampling, ...rest }, CONTEXT);
}

/** Run it alone, with an eye on each update. */
function run(target: Request): void {
  const space = new PagedSpace({ pages: 20, pageSize: 8, prefixCache: true, watermark: 0 });
  const limits = { maxSequences: 8, maxBatchedTokens: 32, chunkedPrefill: true };
  const scheduler = new Scheduler(space, { ...limits, preemption: "recompute", clock: () => 1 });
  const gpu = new FakeGpu(space);
  scheduler.add(target);
  for (let plan = scheduler.schedule(); plan; plan = scheduler.schedule())
    scheduler.update(plan, gpu.run(plan));
}

/** Text of a token is a letter, and "!" is what a decoder holds until the end. */
const letters = () => ({ push: (id: number) => String.fromCharCode(97 + id), end: () => "!" });

describe("a request", () => {
  test("knows how long its sequences become, and that their last token is not computed", () => {
    expect([request().lastLength, request().finalLength]).toEqual([7, 6]);
    const long = request({ maxNewTokens: 100 });
    expect([long.lastLength, long.finalLength]).toEqual([CONTEXT, CONTEXT - 1]);
  });

  test("does not share its prompt and sampling settings with who made it", () => {
    const prompt = [5];
    const sampling = { temperature: 0, seed: 1 };
    const own = request({ prompt, sampling });
    prompt.push(6);
    sampling.temperature = 2;
    expect([own.prompt, own.sampling.temperature, own.live[0]!.tokens]).toEqual([[5], 0, [5]]);
  });

  test("has a branch for each sample, numbered on from its sequenceId", () => {
    const own = request({ n: 3, sequenceId: 10 });
    expect(own.branches.map(({ sequence }) => sequence!.id)).toEqual([10, 11, 12]);
    expect([own.width, own.live.length, own.search]).toEqual([3, 3, undefined]);
  });

  test("has places for all its beams, and begins with one", () => {
    const own = request({ beams: 4 });
    expect([own.width, own.branches.length, own.live.length, own.search?.beams]).toEqual([4, 4, 1, 4]);
    expect(request({ beams: 1 }).search).toBeUndefined();
  });

  test("tells what there is of it before it has begun", () => {
    expect(request({ n: 2 }).output()).toEqual({
      id: 3,
      promptTokens: 3,
      cachedTokens: 0,
      completions: [0, 1].map((index) => ({ index, tokens: [], text: "", finishReason: null })),
      times: { submitted: 0 },
      tokenTimes: [],
      preemptions: 0,
    });
  });

  test("tells text, reason and times of every sample when it is over", () => {
    const own = request({ n: 2, textStream: letters });
    run(own);
    const { completions, times, tokenTimes } = own.output();
    for (const { tokens, text, finishReason } of completions) {
      expect(tokens).toHaveLength(4);
      expect(text).toBe(`${tokens.map((id) => String.fromCharCode(97 + id)).join("")}!`);
      expect(finishReason).toBe("length");
    }
    expect(completions[0]!.tokens).not.toEqual(completions[1]!.tokens);
    expect([times, tokenTimes]).toEqual([
      { submitted: 1, admitted: 1, firstToken: 1, finished: 1 },
      [1, 1, 1, 1],
    ]);
  });

  test("tells its beams best first, with scores, and an eos token is no part of the text", () => {
    const own = request({ beams: 3, eosIds: [0, 1, 2], maxNewTokens: 8, textStream: letters });
    run(own);
    const { completions } = own.output();
    const scores = completions.map(({ score }) => score!);
    expect(scores).toEqual([...scores].sort((a, b) => b - a));
    expect(completions.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(completions.some(({ finishReason }) => finishReason === "eos")).toBe(true);
    for (const { tokens, text, finishReason } of completions) {
      const shown = finishReason === "eos" ? tokens.slice(0, -1) : tokens;
      expect(text).toBe(`${shown.map((id) => String.fromCharCode(97 + id)).join("")}!`);
    }
  });

  test("says that beams ended at the context, or at maxNewTokens", () => {
    for (const [maxNewTokens, reason] of [
      [4, "length"],
      [17, "length"],
      [18, "context"],
    ] as const) {
      const own = request({ beams: 2, maxNewTokens });
      run(own);
      expect(own.output().completions.map(({ finishReason }) => finishReason)).toEqual([reason, reason]);
    }
  });
});

describe("refused", () => {
  const greedy = { temperature: 0, seed: 1 };
  test.each<[Partial<RequestOptions>, string]>([
    [{ prompt: [] }, "the prompt is empty; it must have at least one token"],
    [{ prompt: [1, -1] }, "the prompt has -1, which is not a token id"],
    [
      { prompt: new Array(CONTEXT).fill(1) },
      "the prompt has 20 tokens; a context of 20 leaves no room for a new one: shorten the prompt to 19 tokens or fewer",
    ],
    [{ maxNewTokens: 0 }, "maxNewTokens is 0; it must be an integer of at least 1"],
    [{ n: 0 }, "n is 0; it must be an integer from 1 to 4096"],
    [{ n: 1.5 }, "n is 1.5; it must be an integer from 1 to 4096"],
    [{ n: 1e9 }, "n is 1000000000; it must be an integer from 1 to 4096"],
    [{ beams: 0 }, "beams is 0; it must be an integer from 1 (off) to 4096"],
    [{ beams: 2, n: 2 }, "n is 2; it must be 1 with beams: a search gives as many sequences as it has beams"],
    [
      { beams: 2, sampling: { ...greedy, temperature: 1 } },
      "temperature is 1; it must be 0 with beams: a search does not sample",
    ],
    [
      { beams: 2, sampling: { ...greedy, repetitionPenalty: 1.2 } },
      "repetitionPenalty is 1.2; it must be 1 with beams, which have none",
    ],
    [
      { beams: 2, stops: ["a"], textStream: letters },
      "1 stop strings are given with beams, which have none: leave one of the two out",
    ],
    [{ priority: Number.NaN }, "priority is NaN; it must be a finite number; lower ones come first"],
    [{ sampling: { ...greedy, topK: -1 } }, "topK is -1; it must be an integer of at least 0 (0 is off)"],
    [
      { n: 2, sequenceId: 2 ** 32 - 1 },
      "sequence id is 4294967296; it must be an integer from 0 to 2^32 - 1",
    ],
  ])("%o", (options, message) => {
    expect(() => request(options)).toThrow(new BadInput(message));
  });
});
