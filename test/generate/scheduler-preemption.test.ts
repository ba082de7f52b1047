import { describe, expect, test } from "vitest";
import type { Request } from "../../src/generate/request.ts";
import { Simulation } from "./scheduler-simulation.ts";
import { options, prompt, sizes, turns } from "./scheduler-turns.ts";

describe("preemption", () => {
  /** Two that fit alone and not together. */
  const rivals = (simulation: Simulation): Request[] =>
    [1, 2].map((first) => simulation.submit(options(20, 30, { prompt: prompt(20, first), eosIds: [] }))!);

  test("recompute: the last-come gives its pages back and computes its tokens again, in front of those who wait", () => {
    const simulation = new Simulation({ pages: 8, prefixCache: false });
    const [first, last] = rivals(simulation);
    const next = simulation.submit(options(20, 2, { prompt: prompt(20, 3) }))!;
    while (simulation.scheduler.stats.preemptions === 0) simulation.step();
    expect([first!.preemptions, last!.preemptions]).toEqual([0, 1]);
    const lost = last!.live[0]!.computedBefore;
    expect(lost).toBeGreaterThan(20);
    simulation.drain();
    expect(next.times.admitted).toBeGreaterThan(first!.times.finished!);
    const { stats } = simulation.scheduler;
    expect([stats.preemptions, stats.recomputedTokens, stats.swappedPages]).toEqual([1, lost, 0]);
    expect(stats.computedTokens).toBe(2 * 49 + 21 + lost);
    simulation.expectAllFinished();
  });

  test("swap: its pages go to the host and back into others, and nothing is computed twice", () => {
    const simulation = new Simulation({ pages: 8, prefixCache: false, preemption: "swap" });
    rivals(simulation);
    simulation.drain();
    const { stats } = simulation.scheduler;
    expect([stats.preemptions, stats.recomputedTokens]).toEqual([1, 0]);
    expect(stats.computedTokens).toBe(2 * 49);
    const outs = simulation.plans.flatMap(({ swapOuts }) => swapOuts);
    const ins = simulation.plans.flatMap(({ swapIns }) => swapIns);
    expect(outs.map(({ owner, pages }) => [owner, pages.length])).toEqual([[1, stats.swappedPages]]);
    expect(ins.map(({ owner, pages }) => [owner, pages.length])).toEqual([[1, stats.swappedPages]]);
    simulation.expectAllFinished();
  });

  test("swap: pages that the prefix cache still has need not come back", () => {
    const simulation = new Simulation({ pages: 9, preemption: "swap" });
    simulation.submit(options(20, 24, { eosIds: [] }));
    simulation.submit(options(20, 24, { prompt: [...prompt(20), 5, 5, 5], eosIds: [] }));
    simulation.drain();
    const ins = simulation.plans.flatMap(({ swapIns }) => swapIns);
    expect(ins.map(({ pages }) => pages.slice(0, 2))).toEqual([[0, 0]]);
    expect(ins[0]!.pages.at(-1)).toBeGreaterThan(0);
    simulation.expectAllFinished();
  });

  test("tokens on their way to a preempted request come, and until then it does not come back", () => {
    const simulation = new Simulation({ pages: 8, ahead: 1, prefixCache: false });
    const [, last] = rivals(simulation);
    while (last!.preemptions === 0) simulation.step();
    expect(last!.hasPending).toBe(true);
    const known = last!.live[0]!.tokens.length;
    simulation.abort([...simulation.submitted.keys()][0]!);
    expect(simulation.scheduler.schedule()).toBeUndefined();
    simulation.step();
    expect(last!.live[0]!.tokens.length).toBe(known + 1);
    simulation.drain();
    simulation.expectAllFinished();
  });

  test.each(
    [80, 120, 200].flatMap((pages) =>
      (["recompute", "swap"] as const).flatMap((preemption) =>
        [true, false].map((chunkedPrefill) => ({ pages, preemption, chunkedPrefill })),
      ),
    ),
  )("64 prompts, 128 tokens each, $pages pages, $preemption, chunked prefill $chunkedPrefill", (cell) => {
    const limits = { contextLength: 256, maxSequences: 64, maxBatchedTokens: 256, ahead: 1, watermark: 0.01 };
    const simulation = new Simulation({ ...cell, ...limits }, false);
    for (let i = 0; i < 64; i++)
      simulation.submit(options(1, 128, { prompt: prompt(1 + ((i * 13) % 60), i % 16), eosIds: [] }));
    simulation.drain();
    const { preemptions, swappedPages } = simulation.scheduler.stats;
    expect(preemptions).toBeGreaterThan(0);
    expect(swappedPages > 0).toBe(cell.preemption === "swap");
    simulation.expectAllFinished();
  });

  test("strips never preempt: all a sequence needs is its own from the beginning", () => {
    for (const layout of ["strips-max", "strips-exact"] as const) {
      const simulation = new Simulation({ layout, pages: 20 });
      for (let i = 0; i < 6; i++) simulation.submit(options(20, 10 + i));
      simulation.drain();
      expect(simulation.scheduler.stats.preemptions).toBe(0);
      simulation.expectAllFinished();
    }
  });
});

describe("n samples of one prompt", () => {
  test("the prompt is computed once, n tokens are sampled after it, and a page is copied when they part", () => {
    const simulation = new Simulation();
    simulation.submit(options(20, 3, { n: 3, sequenceId: 7, eosIds: [] }));
    simulation.drain();
    expect(sizes(simulation.plans)).toEqual([[20], [1, 1, 1], [1, 1, 1]]);
    const [first, second] = simulation.plans;
    expect(first!.samples.map(({ piece, sequenceId, generated }) => [piece, sequenceId, generated])).toEqual([
      [0, 7, 0],
      [0, 8, 0],
      [0, 9, 0],
    ]);
    expect(new Set(first!.samples.map(({ owner }) => owner)).size).toBe(3);
    expect([first!.copies.length, second!.copies.length]).toEqual([0, 2]);
    simulation.expectAllFinished();
  });

  test("after a preemption the prompt is computed once more, and each sample its own tokens", () => {
    for (const preemption of ["recompute", "swap"] as const) {
      const simulation = new Simulation({ pages: 12, prefixCache: false, preemption });
      simulation.submit(options(36, 20, { prompt: prompt(36, 1), eosIds: [] }));
      const forked = simulation.submit(options(20, 10, { prompt: prompt(20, 2), n: 3, eosIds: [] }))!;
      simulation.drain();
      expect(forked.preemptions).toBeGreaterThan(0);
      simulation.expectAllFinished();
    }
  });

  test("a request that fits only if nothing is kept back comes back from the host by computing", () => {
    const simulation = new Simulation({ pages: 10, watermark: 0.4, prefixCache: false, preemption: "swap" });
    simulation.submit(options(8, 30, { prompt: prompt(8, 1), eosIds: [] }));
    simulation.submit(options(8, 32, { prompt: prompt(8, 2), n: 2, eosIds: [] }));
    simulation.drain();
    expect(simulation.scheduler.stats.preemptions).toBeGreaterThan(0);
    simulation.expectAllFinished();
  });
});

describe("beams", () => {
  test("step together, and never while their logits are on their way", () => {
    const simulation = new Simulation({ ahead: 1 });
    simulation.submit(options(5, 6, { beams: 3 }));
    simulation.step();
    expect(simulation.scheduler.schedule()).toBeUndefined();
    simulation.drain();
    expect(sizes(simulation.plans)).toEqual([[5], [1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]]);
    expect(simulation.plans.every(({ samples }) => samples.every(({ wantsLogits }) => wantsLogits))).toBe(
      true,
    );
    simulation.expectAllFinished();
  });

  test("that lose their places while logits are on their way come back after those, wherever they stand", () => {
    const simulation = new Simulation({ pages: 10, ahead: 1, prefixCache: false, preemption: "swap" });
    const first = simulation.submit(options(20, 40, { eosIds: [] }))!;
    const search = simulation.submit(options(20, 20, { prompt: prompt(20, 2), beams: 2 }))!;
    while (search.preemptions === 0) simulation.step();
    expect([search.awaitsLogits, search.hasPending]).toEqual([true, true]);
    simulation.abort(first);
    expect(simulation.scheduler.schedule()).toBeUndefined();
    simulation.drain();
    expect(search.preemptions).toBe(1);
    simulation.expectAllFinished();
  });

  test("wait for a step that has room for all of them", () => {
    const simulation = new Simulation({ maxBatchedTokens: 5 });
    simulation.submit(options(3, 8, { n: 2, eosIds: [] }));
    turns(simulation, 1);
    simulation.submit(options(3, 4, { beams: 4 }));
    simulation.drain();
    for (const { samples } of simulation.plans)
      expect([0, 1, 4]).toContain(samples.filter(({ wantsLogits }) => wantsLogits).length);
    simulation.expectAllFinished();
  });
});
