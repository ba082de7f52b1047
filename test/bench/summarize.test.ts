import { describe, expect, test } from "vitest";
import type { RunResult } from "../../src/bench/results.ts";
import { compareTokens, summarize, toldApart } from "../../src/bench/summarize.ts";
import { KV_BYTES_PER_TOKEN, MAX_SEQ_LEN, sampleRun, sampleRuns } from "./sample-results.ts";

/** The run with its steps' seconds replaced. */
function timed(run: RunResult, seconds: readonly number[]): RunResult {
  return {
    ...run,
    steps: run.steps.map((s, i) => ({ ...s, seconds: seconds[i]! })),
    timeToFirstTokenSeconds: seconds[0]!,
    totalSeconds: seconds.reduce((a, b) => a + b, 0),
  };
}

describe("summarize", () => {
  test("averages over every step of every repeat", () => {
    const runs = [
      timed(sampleRun("paged", 1, { newTokens: 3 }), [9, 1, 2]),
      timed(sampleRun("paged", 2, { newTokens: 3 }), [7, 3, 2]),
    ];
    const [s] = summarize(runs);
    expect(s).toMatchObject({
      mode: "paged",
      repeats: 2,
      steps: 6,
      avgSecondsPerToken: 4,
      p50SecondsPerToken: 2.5,
      p95SecondsPerToken: 8.5,
      timeToFirstTokenSeconds: 8,
      decodeAvgSeconds: 2,
      totalSeconds: 12,
      tokensPerSecond: 0.25,
      avgLowSeconds: 4,
      avgHighSeconds: 4,
    });
  });

  test("has the modes in the order of the tables, whatever the order of the runs", () => {
    const modes = summarize(sampleRuns({ modes: ["paged", "none", "contiguous"] })).map((s) => s.mode);
    expect(modes).toEqual(["none", "contiguous", "paged"]);
  });

  test("compares speed and memory with mode none", () => {
    const none = timed(sampleRun("none", 1, { newTokens: 2 }), [3, 5]);
    const paged = timed(sampleRun("paged", 1, { newTokens: 2 }), [1, 1]);
    const [a, b] = summarize([none, { ...paged, peakBytes: none.peakBytes * 2 }]);
    expect([a!.speedupOverNone, b!.speedupOverNone]).toEqual([1, 4]);
    expect([a!.memoryRelativeToNone, b!.memoryRelativeToNone]).toEqual([1, 2]);
  });

  test("says nothing about mode none where it did not run", () => {
    for (const s of summarize(sampleRuns({ modes: ["contiguous", "paged"] }))) {
      expect([s.speedupOverNone, s.memoryRelativeToNone]).toEqual([null, null]);
    }
  });

  test("takes reserved, used and wasted KV after the last step", () => {
    const [contiguous] = summarize([sampleRun("contiguous", 1)]);
    const tokens = 7 + 50 - 1;
    expect(contiguous).toMatchObject({
      kvReservedBytes: MAX_SEQ_LEN * KV_BYTES_PER_TOKEN,
      kvUsedBytes: tokens * KV_BYTES_PER_TOKEN,
      kvWastedBytes: (MAX_SEQ_LEN - tokens) * KV_BYTES_PER_TOKEN,
      wastePercent: expect.closeTo((100 * (MAX_SEQ_LEN - tokens)) / MAX_SEQ_LEN, 9),
    });
    expect(summarize([sampleRun("none", 1)])[0]).toMatchObject({ kvWastedBytes: 0, wastePercent: 0 });
  });

  test("divides the time of a run into first token and growth", () => {
    const run = timed(sampleRun("none", 1, { newTokens: 9 }), [10, 1, 1, 1, 1, 2, 2, 3, 3]);
    expect(summarize([run])[0]).toMatchObject({
      earlyDecodeSeconds: 1,
      lateDecodeSeconds: 3,
      firstTokenExcessSeconds: 9,
      growthExcessSeconds: 6,
    });
  });

  test("works for a single step and for two", () => {
    for (const newTokens of [1, 2]) {
      const [s] = summarize([sampleRun("paged", 1, { newTokens })]);
      expect(s).toMatchObject({ steps: newTokens, earlyDecodeSeconds: null, lateDecodeSeconds: null });
    }
    expect(summarize([sampleRun("paged", 1, { newTokens: 1 })])[0]!.decodeAvgSeconds).toBeNull();
  });

  test("of a batch counts all tokens, and has the means of what was reserved and used", () => {
    // 4, 2 new tokens: steps with 2, 2, 1 and 1 sequences, which see 7, 8, 9 and 10 tokens.
    const runs = sampleRuns({ batch: 2, newTokens: 4, repeats: 1 });
    const [none, contiguous, paged] = summarize([
      runs[0]!,
      timed(runs[1]!, [1, 1, 1, 1]),
      timed(runs[2]!, [1, 1, 1, 1]),
    ]);
    const slot = KV_BYTES_PER_TOKEN;
    expect([contiguous!.tokensPerSecond, contiguous!.avgSecondsPerToken]).toEqual([6 / 4, 1]);
    const used = ((2 * 7 + 2 * 8 + 9 + 10) / 4) * slot;
    expect(contiguous!.batch).toEqual({
      sequences: 2,
      kvPeakReservedBytes: 2 * MAX_SEQ_LEN * slot,
      kvMeanReservedBytes: 1.5 * MAX_SEQ_LEN * slot,
      kvMeanUsedBytes: used,
      meanWastePercent: expect.closeTo(100 * (1 - used / (1.5 * MAX_SEQ_LEN * slot)), 9),
      kvReservedBytesPerSequence: MAX_SEQ_LEN * slot,
      sequencesInContiguousBytes: 2,
    });
    expect(paged!.batch).toMatchObject({
      kvMeanReservedBytes: 1.5 * 16 * slot,
      kvReservedBytesPerSequence: 16 * slot,
      sequencesInContiguousBytes: (2 * MAX_SEQ_LEN) / 16,
    });
    expect(none!.batch).toMatchObject({ kvMeanReservedBytes: 0, sequencesInContiguousBytes: null });
    expect(summarize(runs.slice(2))[0]!.batch!.sequencesInContiguousBytes).toBeNull();
    expect("batch" in summarize([sampleRun("paged", 1)])[0]!).toBe(false);
  });

  test("counts whole sequences alone as fitting", () => {
    // A paged sequence grows from one page to three.
    const runs = sampleRuns({ batch: 3, newTokens: 33, repeats: 1 });
    const [contiguous, paged] = summarize(runs).slice(1);
    const exact = contiguous!.kvAllocatedBytes / paged!.batch!.kvReservedBytesPerSequence;
    expect(exact % 1).toBeGreaterThan(0);
    expect(paged!.batch!.sequencesInContiguousBytes).toBe(Math.floor(exact));
  });

  test("leaves out runs that broke off", () => {
    const broken: RunResult = { ...sampleRun("paged", 1), finishReason: "error" };
    expect(summarize([sampleRun("none", 1), broken]).map((s) => s.mode)).toEqual(["none"]);
    expect(summarize([])).toEqual([]);
  });
});

describe("toldApart", () => {
  test("needs the repeats of two modes not to overlap", () => {
    const run = (mode: "contiguous" | "paged", repeat: number, seconds: number) =>
      timed(sampleRun(mode, repeat, { newTokens: 2 }), [seconds, seconds]);
    const both = (paged: [number, number]) =>
      summarize([
        run("contiguous", 1, 1),
        run("contiguous", 2, 1.2),
        run("paged", 1, paged[0]),
        run("paged", 2, paged[1]),
      ]);
    const [a, b] = both([1.1, 1.3]);
    expect(toldApart(a!, b!)).toBe(false);
    const [c, d] = both([1.3, 1.4]);
    expect([toldApart(c!, d!), toldApart(d!, c!)]).toEqual([true, true]);
  });
});

describe("compareTokens", () => {
  const withToken = (run: RunResult, step: number, token: number): RunResult => ({
    ...run,
    tokens: run.tokens.map((t, i) => (i === step - 1 ? token : t)),
  });

  test("finds equal runs equal, all repeats counted", () => {
    expect(compareTokens(sampleRuns())).toEqual({ identical: true, runs: 6, tokens: 50 });
  });

  test("reports the earliest difference with both tokens", () => {
    const runs = sampleRuns();
    runs[3] = withToken(runs[3]!, 20, 9);
    runs[5] = withToken(runs[5]!, 12, 4095);
    expect(compareTokens(runs)).toEqual({
      identical: false,
      runs: 6,
      tokens: 50,
      firstDifference: {
        step: 12,
        modeA: "none",
        repeatA: 1,
        tokenA: runs[0]!.tokens[11],
        modeB: "paged",
        repeatB: 2,
        tokenB: 4095,
      },
    });
  });

  test("a shorter run differs where it ends, unless it broke off", () => {
    const short = { ...sampleRun("paged", 1), tokens: sampleRun("paged", 1).tokens.slice(0, 10) };
    const none = sampleRun("none", 1);
    expect(compareTokens([none, short]).firstDifference).toMatchObject({ step: 11, tokenB: null });
    const broken = { ...short, finishReason: "error" as const };
    expect(compareTokens([none, broken])).toEqual({ identical: true, runs: 2, tokens: 10 });
  });

  test("a run that broke off does not hide a later difference of the others", () => {
    const whole = sampleRun("contiguous", 1);
    const broken: RunResult = {
      ...sampleRun("none", 1),
      tokens: whole.tokens.slice(0, 2),
      finishReason: "error",
    };
    const other = withToken(sampleRun("paged", 1), 20, 9);
    expect(compareTokens([broken, whole, other])).toMatchObject({
      identical: false,
      runs: 3,
      firstDifference: { step: 20, modeA: "contiguous", modeB: "paged" },
    });
    const brokenLater: RunResult = { ...other, finishReason: "error" };
    expect(compareTokens([broken, brokenLater, { ...whole, finishReason: "error" }]).identical).toBe(false);
  });

  test("compares every sequence of a batch, and names the one that differs first", () => {
    const runs = sampleRuns({ batch: 3, newTokens: 6 });
    expect(compareTokens(runs)).toEqual({ identical: true, runs: 6, tokens: 6 + 4 + 2, sequences: 3 });
    const changed = (run: RunResult, id: number, index: number): RunResult => ({
      ...run,
      sequences: run.sequences!.map((s) =>
        s.id === id ? { ...s, tokens: s.tokens.map((t, i) => (i === index ? 9 : t)) } : s,
      ),
    });
    runs[4] = changed(changed(runs[4]!, 1, 3), 2, 1);
    expect(compareTokens(runs)).toMatchObject({
      identical: false,
      firstDifference: { step: 2, sequence: 2, modeB: "paged", repeatB: 1, tokenB: 9 },
    });
  });

  test("a sequence of a batch that is shorter differs where it ends", () => {
    const runs = sampleRuns({ batch: 2, newTokens: 4, repeats: 1 });
    const shorter = runs[1]!.sequences!.map((s) => (s.id === 1 ? { ...s, tokens: s.tokens.slice(0, 1) } : s));
    runs[1] = { ...runs[1]!, sequences: shorter };
    expect(compareTokens(runs).firstDifference).toMatchObject({ step: 2, sequence: 1, tokenB: null });
  });

  test("says nothing of fewer than two runs that have tokens", () => {
    const empty: RunResult = { ...sampleRun("paged", 1), tokens: [], steps: [], finishReason: "error" };
    expect(compareTokens([])).toEqual({ identical: null, runs: 0, tokens: 0 });
    expect(compareTokens([sampleRun("none", 1)])).toEqual({ identical: null, runs: 1, tokens: 50 });
    expect(compareTokens([sampleRun("none", 1), empty])).toEqual({ identical: null, runs: 1, tokens: 50 });
  });
});
