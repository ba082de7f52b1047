import { describe, expect, test } from "vitest";
import { BadInput } from "../../src/check.ts";
import { inFlagNames } from "../../src/cli/engine-options.ts";
import { engineSettings } from "../../src/generate/engine-settings.ts";
import type { EngineOptions } from "../../src/generate/engine-types.ts";
import { Request } from "../../src/generate/request.ts";
import { Scheduler } from "../../src/generate/scheduler.ts";
import { PagedSpace } from "../../src/kv/page-space.ts";

describe("what the engine refuses is said in flags", () => {
  test.each<[EngineOptions, RegExp]>([
    [{ maxSeqLen: 65 }, /^--max-seq-len is 65; wanted an integer from 2 to 64/],
    [{ maxSequences: 0 }, /^--max-sequences is 0; wanted/],
    [
      { layout: "strips-max", kvPages: 3 },
      /^--kv-pages is given and --kv-layout is strips-max.*; give --kv-memory$/,
    ],
    [
      { maxBatchedTokens: 8, chunkedPrefill: false },
      /^--max-batched-tokens is 8 and --no-chunked-prefill is given; .*raise --max-batched-tokens, lower --max-seq-len, or leave --no-chunked-prefill out$/,
    ],
  ])("%o", async (options, message) => {
    const error = await inFlagNames(async () => engineSettings(options, 64, "gpu")).catch((e) => e);
    expect(error).toBeInstanceOf(BadInput);
    expect(error.message).toMatch(message);
  });

  test("requests too", async () => {
    const space = new PagedSpace({ pages: 64, pageSize: 16, prefixCache: true, watermark: 0 });
    const limits = {
      maxSequences: 2,
      maxBatchedTokens: 64,
      chunkedPrefill: true,
      preemption: "recompute",
    } as const;
    const sampling = { temperature: 0, seed: 0 };
    const request = new Request(0, { prompt: [1], sampling, maxNewTokens: 2, n: 3 }, 64);
    await expect(inFlagNames(async () => new Scheduler(space, limits).add(request))).rejects.toThrow(
      "--n is 3, and at most 2 sequences run at once: raise --max-sequences, or lower --n",
    );
  });

  test("other errors, and what is no option, stay as they are", async () => {
    const broken = new Error("maxSequences is broken");
    await expect(inFlagNames(() => Promise.reject(broken))).rejects.toBe(broken);
    const other = new BadInput("the prompt is empty; give at least one word");
    await expect(inFlagNames(() => Promise.reject(other))).rejects.toThrow(other.message);
    expect(await inFlagNames(async () => 7)).toBe(7);
  });
});
