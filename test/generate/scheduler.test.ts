import { describe, expect, test } from "vitest";
import type { RequestOptions } from "../../src/generate/engine-types.ts";
import { Request } from "../../src/generate/request.ts";
import { NO_TOKEN } from "../../src/generate/scheduler-types.ts";
import { NO_TOKEN as SAMPLERS_NO_TOKEN } from "../../src/ops/sample.ts";
import { CONTEXT, Simulation } from "./scheduler-simulation.ts";
import { options, prompt, reason, sizes, steps, turns } from "./scheduler-turns.ts";

describe("one request", () => {
  test("computes its prompt, and then one token a step; the last one is not computed", () => {
    const simulation = new Simulation();
    simulation.submit(options(5, 4));
    simulation.drain();
    expect(sizes(simulation.plans)).toEqual([[5], [1], [1], [1]]);
    expect(simulation.plans.map(({ pieces }) => pieces[0]!.position)).toEqual([0, 5, 6, 7]);
    expect(simulation.plans.map(({ samples }) => samples[0]!.generated)).toEqual([0, 1, 2, 3]);
    simulation.expectAllFinished();
  });

  test("tells each token, its end, and its times by the scheduler's clock", () => {
    const simulation = new Simulation();
    const request = simulation.submit(options(5, 2, { eosIds: [] }))!;
    simulation.drain();
    const [tokens] = request.output().completions.map((completion) => completion.tokens);
    expect(simulation.updates).toEqual([
      { type: "token", request, index: 0, owner: 0, token: tokens![0], text: "", finishReason: null },
      { type: "token", request, index: 0, owner: 0, token: tokens![1], text: "", finishReason: "length" },
      { type: "finished", request },
    ]);
    const { times, tokenTimes } = request.output();
    expect(times).toEqual({ submitted: 0, admitted: 1, firstToken: 2, finished: 3 });
    expect(tokenTimes).toEqual([2, 3]);
    const { timeToFirstToken, interTokenTime } = simulation.scheduler.latencies;
    expect([timeToFirstToken?.mean, interTokenTime?.mean]).toEqual([2, 1]);
  });

  test("of maxNewTokens 1 is over after its prompt", () => {
    const simulation = new Simulation();
    simulation.submit(options(5, 1));
    simulation.drain();
    expect(sizes(simulation.plans)).toEqual([[5]]);
    simulation.expectAllFinished();
  });
});

describe("a step's budget", () => {
  test("long prompts are computed in parts beside sequences that decode", () => {
    const simulation = new Simulation({ maxBatchedTokens: 10 });
    simulation.submit(options(4, 6));
    turns(simulation, 1);
    simulation.submit(options(23, 2, { prompt: prompt(23, 9) }));
    simulation.drain();
    expect(sizes(simulation.plans)).toEqual([[4], [1, 9], [1, 9], [1, 5], [1, 1], [1]]);
    simulation.expectAllFinished();
  });

  test("without chunked prefill a prompt waits until all of it fits, and nobody overtakes it", () => {
    const simulation = new Simulation({ maxBatchedTokens: 10, chunkedPrefill: false, prefixCache: false });
    simulation.submit(options(4, 3));
    simulation.submit(options(10, 2));
    simulation.submit(options(3, 2));
    simulation.drain();
    expect(sizes(simulation.plans)).toEqual([[4], [1], [1], [10], [1, 3], [1]]);
    simulation.expectAllFinished();
  });

  test("without chunked prefill a prompt longer than the budget is refused, and says what to do", () => {
    const { scheduler } = new Simulation({ maxBatchedTokens: 10, chunkedPrefill: false });
    expect(reason(() => scheduler.add(new Request(0, options(11, 2), CONTEXT)))).toBe(
      "the prompt has 11 tokens, and a step has at most 10: turn chunkedPrefill on, raise maxBatchedTokens, or shorten the prompt",
    );
    expect(scheduler.isIdle).toBe(true);
  });

  test("those who run come before those who wait, and a budget smaller than they are many is theirs in turn", () => {
    const simulation = new Simulation({ maxBatchedTokens: 3 });
    for (let i = 0; i < 5; i++) simulation.submit(options(1, 3));
    simulation.drain();
    expect(Math.max(...simulation.plans.map(({ tokens }) => tokens))).toBe(3);
    simulation.expectAllFinished();
  });
});

describe("the queue", () => {
  const finished = (simulation: Simulation) =>
    simulation.updates.flatMap((update) => (update.type === "finished" ? [update.request.id] : []));

  test("lower priorities go first, of one priority the first come", () => {
    const simulation = new Simulation({ maxSequences: 1 });
    for (const priority of [0, 5, -1, 0, -1]) simulation.submit(options(3, 2, { priority }));
    simulation.drain();
    expect(finished(simulation)).toEqual([2, 4, 0, 3, 1]);
  });

  test("all n samples of a request count as sequences", () => {
    const simulation = new Simulation({ maxSequences: 4 });
    simulation.submit(options(3, 3, { n: 3 }));
    simulation.submit(options(3, 3, { n: 2 }));
    simulation.submit(options(3, 3));
    turns(simulation, 1);
    expect([simulation.scheduler.running, simulation.scheduler.waiting]).toEqual([1, 2]);
    simulation.drain();
    simulation.expectAllFinished();
  });

  test("nobody is overtaken for being large", () => {
    const simulation = new Simulation({ pages: 8, prefixCache: false });
    simulation.submit(options(30, 20));
    steps(simulation, 2);
    const large = simulation.submit(options(50, 2, { prompt: prompt(50, 2) }))!;
    for (let i = 0; i < 5; i++) simulation.submit(options(3, 2));
    simulation.drain();
    expect(finished(simulation)[1]).toBe(large.id);
    simulation.expectAllFinished();
  });

  test("a large request finishes although small ones never stop coming", () => {
    const simulation = new Simulation({ pages: 8, watermark: 0.2, maxSequences: 4, prefixCache: false });
    for (let i = 0; i < 4; i++) simulation.submit(options(8, 12));
    const large = simulation.submit(options(40, 20))!;
    for (let i = 0; i < 300 && !large.isOver; i++) {
      simulation.submit(options(8, 12));
      turns(simulation, 1);
    }
    expect(large.state).toBe("finished");
  });
});

describe("prefix caching", () => {
  test("requests of one step share what they have in common, and only what is computed counts", () => {
    const simulation = new Simulation({ maxBatchedTokens: 30 });
    for (let i = 0; i < 3; i++) simulation.submit(options(20, 2));
    simulation.drain();
    expect(sizes(simulation.plans)[0]).toEqual([20, 4, 4]);
    const { prefixQueries, prefixHits } = simulation.scheduler.stats;
    expect([prefixQueries, prefixHits]).toEqual([60, 32]);
    expect([...simulation.submitted.keys()].map((r) => r.output().cachedTokens)).toEqual([0, 16, 16]);
    simulation.expectAllFinished();
  });

  test("what was generated is found too, up to the last token but one", () => {
    for (const ahead of [0, 1]) {
      const simulation = new Simulation({ ahead });
      const first = simulation.submit(options(10, 15, { eosIds: [] }))!;
      simulation.drain();
      const text = [...first.prompt, ...first.output().completions[0]!.tokens];
      const second = simulation.submit(options(1, 2, { prompt: text }))!;
      simulation.drain();
      expect(second.output().cachedTokens).toBe(24);
      simulation.expectAllFinished();
    }
  });

  test("tenants share nothing", () => {
    const simulation = new Simulation();
    for (const salt of ["a", "b", "a"]) simulation.submit(options(20, 2, { salt }));
    simulation.drain();
    expect([...simulation.submitted.keys()].map((r) => r.output().cachedTokens)).toEqual([0, 0, 16]);
  });
});

describe("a step ahead of the tokens", () => {
  test("a token that only the GPU knows is named by its plan and sample", () => {
    const simulation = new Simulation({ ahead: 1 });
    simulation.submit(options(5, 4, { eosIds: [] }));
    simulation.drain();
    expect(simulation.plans.map(({ pieces }) => pieces[0]!.tokens.at(-1))).toEqual([
      prompt(5).at(-1),
      { plan: 0, sample: 0 },
      { plan: 1, sample: 0 },
      { plan: 2, sample: 0 },
    ]);
    expect(simulation.scheduler.stats.surplusTokens).toBe(0);
    simulation.expectAllFinished();
  });

  test("nothing is planned past an end that is certain; after eos there is a surplus, which nobody gets", () => {
    const probe = new Simulation();
    const request = probe.submit(options(5, 8, { eosIds: [] }))!;
    probe.drain();
    const { tokens } = request.output().completions[0]!;
    const simulation = new Simulation({ ahead: 1 });
    simulation.submit(options(5, 8, { eosIds: [tokens[0]!] }));
    simulation.drain();
    expect([simulation.plans.length, simulation.scheduler.stats.surplusTokens]).toEqual([2, 1]);
    simulation.expectAllFinished();
  });
});

describe("abort", () => {
  test("of one who waits, one who runs and one whose tokens are on their way: places are free at once", () => {
    const simulation = new Simulation({ ahead: 1, maxSequences: 2, prefixCache: false });
    const [running, other, waiting] = [1, 2, 3].map(() => simulation.submit(options(10, 9))!);
    steps(simulation, 2);
    simulation.abort(waiting!);
    simulation.abort(running!);
    expect(simulation.space.usage().logical).toBe(11);
    simulation.abort(other!);
    expect(simulation.space.usage().reserved).toBe(0);
    simulation.drain();
    expect(simulation.scheduler.stats.surplusTokens).toBe(4);
    expect(simulation.updates).toEqual([]);
    expect(running!.output().completions[0]!.finishReason).toBe("aborted");
    expect(simulation.scheduler.abort(99)).toBeUndefined();
  });

  test("of one whose pages are on the host", () => {
    const simulation = new Simulation({ pages: 8, prefixCache: false, preemption: "swap" });
    simulation.submit(options(20, 30, { prompt: prompt(20, 1), eosIds: [] }));
    const last = simulation.submit(options(20, 30, { prompt: prompt(20, 2), eosIds: [] }))!;
    while (last.preemptions === 0) simulation.step();
    simulation.abort(last);
    simulation.drain();
    simulation.expectAllFinished();
  });

  test("of one whose pages were to go to the host with the next plan: they stay", () => {
    const simulation = new Simulation({ pages: 6, prefixCache: false, preemption: "swap", ahead: 1 });
    simulation.submit(options(10, 12, { beams: 2 }));
    const last = simulation.submit(options(12, 20, { prompt: prompt(12, 2), eosIds: [] }))!;
    while (last.preemptions === 0) simulation.step();
    // The beams wait for logits, so there was nothing to plan.
    expect(simulation.plans.flatMap(({ swapOuts }) => swapOuts)).toEqual([]);
    expect(last.live[0]!.pagesOnHost).toBeGreaterThan(0);
    simulation.abort(last);
    simulation.drain();
    expect(simulation.plans.flatMap(({ swapOuts }) => swapOuts)).toEqual([]);
    simulation.expectAllFinished();
  });

  test("10,000 requests, a fifth of them aborted: every page is free again", () => {
    const simulation = new Simulation(
      { pages: 150, maxSequences: 32, maxBatchedTokens: 256, ahead: 1 },
      false,
    );
    const { scheduler, space } = simulation;
    const { free } = space.usage();
    let doomed: Request[] = [];
    for (let i = 0; i < 10_000; i++) {
      const rest = { prompt: prompt(1 + (i % 19), i % 7), ...(i % 50 === 1 ? { n: 3 } : {}) };
      const request = simulation.submit(options(1, 1 + ((i * 7) % 11), rest))!;
      if (i % 5 === 0) doomed.push(request);
      if (i % 2 === 0) simulation.step();
      // Half of the doomed wait, the others run.
      doomed = doomed.filter((request) => {
        const dies = request.state === "running" || request.id % 10 === 0;
        if (dies) simulation.abort(request);
        return !dies;
      });
    }
    while (simulation.step())
      for (const request of doomed) if (request.state === "running") simulation.abort(request);
    const { finished, aborted } = scheduler.stats;
    expect([finished, aborted]).toEqual([8000, 2000]);
    expect(space.usage()).toMatchObject({ free, reserved: 0, logical: 0 });
    expect([scheduler.running, scheduler.waiting, scheduler.isIdle]).toEqual([0, 0, true]);
  });
});

describe("what cannot be", () => {
  test("a request that can never fit is refused with the reason", () => {
    const { scheduler } = new Simulation({ pages: 4, maxSequences: 3, maxBatchedTokens: 2 });
    const refusal = (rest: Partial<RequestOptions>) =>
      reason(() => scheduler.add(new Request(0, options(10, 5, rest), CONTEXT)));
    expect(refusal({ maxNewTokens: 30 })).toContain("39 tokens can need 5 pages");
    expect(refusal({ n: 3 })).toContain("3 sequences of up to 14 tokens can need 6 pages");
    expect(refusal({ n: 4 })).toBe(
      "n is 4, and at most 3 sequences run at once: raise maxSequences, or lower n",
    );
    expect(refusal({ beams: 3 })).toContain("beams is 3, and a step has at most 2 tokens");
    expect([scheduler.waiting, scheduler.isIdle]).toEqual([0, true]);
  });

  test("where no token can be chosen, the request ends with an error, and others go on", () => {
    const simulation = new Simulation();
    const { scheduler } = simulation;
    const spoilt = simulation.submit(options(5, 4, { n: 2 }))!;
    const search = simulation.submit(options(5, 4, { beams: 2 }))!;
    const other = simulation.submit(options(5, 4))!;
    const plan = scheduler.schedule()!;
    const { tokens, logits } = simulation.gpu.run(plan);
    tokens[1] = NO_TOKEN;
    logits.set(2, new Float32Array(16).fill(Number.NaN));
    const updates = scheduler.update(plan, { tokens, logits });
    expect(updates.map(({ type, request }) => [type, request.id])).toEqual([
      ["token", 0],
      ["finished", 0],
      ["finished", 1],
      ["token", 2],
    ]);
    for (const failed of [spoilt, search]) {
      const { error, completions } = failed.output();
      expect(failed.state).toBe("failed");
      expect(error).toMatch(/^a logit is NaN or Infinity/);
      for (const { finishReason } of completions) expect(finishReason).toBe("error");
    }
    expect(scheduler.running).toBe(1);
    expect(other.output().error).toBeUndefined();
  });

  test("the mark of the sampler is the scheduler's", () => {
    expect(NO_TOKEN).toBe(SAMPLERS_NO_TOKEN);
  });

  test("results come in the order of plans, and a request once", () => {
    const simulation = new Simulation({ ahead: 1 });
    const request = simulation.submit(options(5, 4))!;
    const { scheduler } = simulation;
    const [first, second] = [scheduler.schedule()!, scheduler.schedule()!];
    expect(() => scheduler.update(second, { tokens: [1] })).toThrow(
      "scheduler: the result of plan 1 came out of turn",
    );
    expect(() => scheduler.add(request)).toThrow("scheduler: request 0 was added before");
    scheduler.update(first, { tokens: [1] });
    scheduler.update(second, { tokens: [1] });
  });
});
