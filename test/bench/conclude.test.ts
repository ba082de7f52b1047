import { describe, expect, test } from "vitest";
import { completeResults, concludeFrom } from "../../src/bench/conclude.ts";
import { summarize } from "../../src/bench/summarize.ts";
import { type Shape, sampleMeasured, sampleRuns } from "./sample-results.ts";

const PLAIN = { software: false, sameTokens: true, timing: "visible" } as const;
const conclude = (shape: Shape) => concludeFrom(summarize(sampleRuns(shape)), PLAIN, "en").join("\n");

describe("the conclusion", () => {
  test("names the fastest mode, how much longer the others take and the speed-ups over no cache", () => {
    const text = conclude({ slowness: { paged: 2 } });
    expect(text).toMatch(/^Fastest: contiguous, 4\.\d\d ms a token on average\.$/m);
    expect(text).toMatch(/^Compared with contiguous, a token takes (1\.9|2\.0)\d× as long with paged\.$/m);
    expect(text).toMatch(/^Speed-up over no cache: contiguous 2\.\d\d×, paged 1\.\d\d×\.$/m);
  });

  test("says so when paged is slower even than no cache", () => {
    const text = conclude({ slowness: { paged: 10 } });
    expect(text).toMatch(/paged 0\.\d\d×/);
    expect(text).not.toMatch(/Fastest: paged/);
  });

  test("calls a difference within the spread of the repeats a tie", () => {
    const runs = sampleRuns({ modes: ["contiguous", "paged"] });
    const shifted = runs.map((r) => (r.repeat === 2 ? { ...r, steps: runs[0]!.steps } : r));
    const text = concludeFrom(summarize(shifted), PLAIN, "en")[0];
    expect(text).toMatch(
      /^Fastest: contiguous \(.*\) and paged \(.*\) cannot be told apart; .*the 2 repeats\.$/,
    );
  });

  test("tells growth from a costly first token", () => {
    expect(conclude({})).toMatch(
      /No cache: the steps grow from .* this growth costs more than the first token/,
    );
    expect(conclude({})).toMatch(/Paged: .*neither growth nor the first token dominates/);
    expect(conclude({ prefillSeconds: 2 })).toMatch(
      /No cache: the first token takes 1\.\d\d s, 7\d\.\d % of the run/,
    );
    expect(conclude({ newTokens: 3 })).toContain("Paged: too few steps to tell whether they grow.");
  });

  test("counts what was reserved for nothing and what paging saves", () => {
    const text = conclude({});
    expect(text).toContain(
      "Contiguous reserved 9.0 MiB for keys and values and used 504.0 KiB of it; 8.5 MiB (94.5 %)",
    );
    expect(text).toContain("Paging reserves 8.4 MiB (93.8 %) less than the contiguous cache");
    expect(text).not.toContain("page pool");
  });

  test("admits that paging saved nothing, and that a pool is larger than what it lends", () => {
    const summary = summarize(sampleRuns({}));
    const paged = summary[2]!;
    const larger = { ...paged, kvReservedBytes: summary[1]!.kvReservedBytes + 1024 };
    const conclusion = (p: typeof paged) => concludeFrom([...summary.slice(0, 2), p], PLAIN, "en").join("\n");
    expect(conclusion(larger)).toContain("Paging saves no KV memory here: it reserves 1.0 KiB more");
    expect(conclusion({ ...paged, kvAllocatedBytes: 2 ** 23 })).toContain("The page pool itself is 8.0 MiB");
  });

  test("ends with its caveats", () => {
    const summary = summarize(sampleRuns({ repeats: 1 }));
    const all = { ...PLAIN, software: true, sameTokens: false, incomplete: "paged: OutOfMemory" };
    expect(concludeFrom(summary, all, "en").slice(-4)).toEqual([
      expect.stringContaining("no benchmark of a GPU"),
      expect.stringContaining("One repeat only"),
      expect.stringContaining("did not give the same tokens"),
      "The experiment is incomplete: paged: OutOfMemory",
    ]);
    const none = concludeFrom(summarize(sampleRuns({})), PLAIN, "en").join("\n");
    const alone = { ...PLAIN, sameTokens: null };
    expect(concludeFrom(summary, alone, "en").join("\n")).not.toContain("did not give");
    expect(none).not.toMatch(/software|One repeat|incomplete|did not give/);
  });

  test("says what a step's time is, and that only caches let steps run ahead", () => {
    const of = (shape: Shape) => completeResults(sampleMeasured(shape), "en").conclusion.join("\n");
    expect(of({})).toContain("A step's time is what a caller waits for");
    expect(of({})).not.toContain("rounds");
    const pipelined = of({ timing: "pipelined" });
    expect(pipelined).toContain("A step's time is its round's time over its steps");
    expect(pipelined).toContain("No cache waits for each of its tokens and the others do not");
    expect(of({ timing: "pipelined", modes: ["paged"] })).not.toContain("No cache");
    expect(of({ timing: "pipelined", modes: ["none"] })).toContain("what a caller waits for");
  });

  test("of a batch says what its sequences were, what the modes kept for them and how many would fit", () => {
    const of = (shape: Shape) => completeResults(sampleMeasured(shape), "en").conclusion.join("\n");
    const text = of({ batch: 4, slowness: { paged: 2 } });
    expect(text).toContain("4 sequences at once, of the same prompt, with at most 50, 38, 25, 13 new tokens");
    expect(text).toMatch(/^Fastest: contiguous, 4\.\d\d ms a step on average\.$/m);
    expect(text).toMatch(/^Compared with contiguous, a step takes /m);
    expect(text).toMatch(
      /^Tokens per second of all sequences: no cache [\d.]+, contiguous [\d.]+, paged [\d.]+\.$/m,
    );
    // (4 · 13 + 3 · 12 + 2 · 13 + 1 · 12) / 50 = 2.52 strips of 9 MiB.
    expect(text).toMatch(/Contiguous reserved 22\.7 MiB .* \(36\.0 MiB at most\) and used .*; 97\.\d % was/);
    expect(text).toMatch(/Paged reserved .* KiB .*; \d\d\.\d % was reserved for nothing/);
    expect(text).toMatch(/Paging reserves 2\d\.\d MiB \(9\d\.\d %\) less than the contiguous cache/);
    expect(text).toMatch(/\(36\.0 MiB\) holds 4 strips; with pages 1\d\d sequences .*: derived, not run/);
    expect(text).toContain("what sharing them saves is measured by quire bench capacity");
    // The one left at the end, and its growth, are no figures of a batch.
    expect(text).not.toMatch(/dominates|the steps grow/);
    expect(text).not.toContain("With temperature 0");
    const without = of({ batch: 4, modes: ["none", "paged"] });
    expect(without).not.toMatch(/would fit|less than the contiguous/);
    expect(of({ batch: 4, modes: ["none"] })).not.toMatch(/reserved|pages/);
  });

  test("of a batch with temperature 0 says that the sequences are alike", () => {
    const measured = sampleMeasured({ batch: 2 });
    const greedy = { ...measured, options: { ...measured.options, temperature: 0 } };
    expect(completeResults(greedy, "en").conclusion.join("\n")).toContain(
      "With temperature 0 the sequences say the same",
    );
  });

  test("of a batch admits that paging saved nothing", () => {
    const summary = summarize(sampleRuns({ batch: 2 }));
    const paged = summary[2]!;
    const more = summary[1]!.batch!.kvMeanReservedBytes + 1024;
    const larger = { ...paged, batch: { ...paged.batch!, kvMeanReservedBytes: more } };
    const workload = { lengths: [50, 25], greedy: false };
    expect(concludeFrom([summary[1]!, larger], { ...PLAIN, workload }, "en").join("\n")).toContain(
      "Paging saves no KV memory here: it reserves 1.0 KiB more",
    );
  });

  test("compares nothing when there is nothing to compare", () => {
    expect(concludeFrom([], PLAIN, "en")).toEqual([]);
    expect(conclude({ modes: ["paged"] })).not.toMatch(/Fastest|Speed-up|Peak GPU memory/);
  });

  test("has as many sentences in Chinese", () => {
    for (const shape of [
      {},
      { prefillSeconds: 2, repeats: 1 },
      { slowness: { paged: 10 } },
      { newTokens: 3 },
      { timing: "pipelined" as const },
      { batch: 3 },
      { batch: 3, modes: ["paged" as const] },
    ]) {
      const en = completeResults(sampleMeasured(shape), "en").conclusion;
      const zh = completeResults(sampleMeasured(shape), "zh").conclusion;
      expect(zh).toHaveLength(en.length);
      for (const sentence of zh) expect(sentence).toMatch(/[\u4e00-\u9fff].*[。：]/);
    }
  });
});
