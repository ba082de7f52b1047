import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { mean, percentile, standardDeviation } from "../../src/bench/measure.ts";
import {
  arrivalTimes,
  drawLength,
  type Lengths,
  lengthsText,
  parseLengths,
  type RandomWorkloadOptions,
  randomWorkload,
} from "../../src/bench/workload.ts";
import { datasetWorkload, parseDataset } from "../../src/bench/workload-dataset.ts";
import { BadInput } from "../../src/check.ts";

const OPTIONS: RandomWorkloadOptions = {
  numPrompts: 20,
  inputLen: { kind: "lognormal", mean: 20, sigma: 1 },
  outputLen: { kind: "uniform", from: 3, to: 9 },
  vocabSize: 131,
  contextLength: 64,
  requestRate: 10,
  seed: 7,
};

const lengths = fc.oneof(
  fc.record({ kind: fc.constant("fixed" as const), tokens: fc.integer({ min: 1, max: 40 }) }),
  fc
    .tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 0, max: 30 }))
    .map(([from, more]) => ({ kind: "uniform" as const, from, to: from + more })),
  fc.record({
    kind: fc.constant("lognormal" as const),
    mean: fc.integer({ min: 1, max: 400 }).map((n) => n / 4 + 1),
    sigma: fc.integer({ min: 0, max: 16 }).map((n) => n / 4),
  }),
);
const seeds = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });

describe("a random workload", () => {
  const anyOptions = fc.record({
    numPrompts: fc.integer({ min: 1, max: 12 }),
    inputLen: lengths,
    outputLen: lengths,
    prefixLen: fc.integer({ min: 0, max: 20 }),
    vocabSize: fc.integer({ min: 1, max: 200 }),
    contextLength: fc.integer({ min: 2, max: 160 }),
    requestRate: fc.constantFrom(0.5, 100, Number.POSITIVE_INFINITY),
    burstiness: fc.constantFrom(0.2, 1, 3.5, Number.POSITIVE_INFINITY),
    seed: seeds,
  });

  test("fits the context and the vocabulary, shares its prefix and comes in order; or it is refused", () => {
    let refused = 0;
    fc.assert(
      fc.property(anyOptions, (options) => {
        let requests: ReturnType<typeof randomWorkload>;
        try {
          requests = randomWorkload(options);
        } catch (error) {
          expect(error).toBeInstanceOf(BadInput);
          refused++;
          return;
        }
        expect(requests).toHaveLength(options.numPrompts);
        const prefix = requests[0]!.prompt.slice(0, options.prefixLen);
        for (const [i, { prompt, outputLen, arrival }] of requests.entries()) {
          expect(prompt.length + outputLen).toBeLessThanOrEqual(options.contextLength);
          expect(prompt.length).toBeGreaterThan(options.prefixLen);
          expect(outputLen).toBeGreaterThanOrEqual(1);
          expect(prompt.every((id) => Number.isInteger(id) && id >= 0 && id < options.vocabSize)).toBe(true);
          expect(prompt.slice(0, options.prefixLen)).toEqual(prefix);
          expect(arrival).toBeGreaterThanOrEqual(i === 0 ? 0 : requests[i - 1]!.arrival);
          expectWithin(options.outputLen, outputLen);
          expectWithin(options.inputLen, prompt.length - options.prefixLen);
        }
        if (options.requestRate === Number.POSITIVE_INFINITY) expect(requests.at(-1)!.arrival).toBe(0);
      }),
      { numRuns: 200, seed: 1 },
    );
    expect(refused).toBeGreaterThan(0);
    expect(refused).toBeLessThan(200);
  });

  /** What was asked for is what comes; only log-normal lengths are clipped. */
  function expectWithin(asked: Lengths, tokens: number): void {
    if (asked.kind === "fixed") expect(tokens).toBe(asked.tokens);
    if (asked.kind === "uniform") expect(tokens >= asked.from && tokens <= asked.to).toBe(true);
  }

  test("is the same for the same seed, and its first requests are those of a shorter one", () => {
    fc.assert(
      fc.property(seeds, fc.integer({ min: 1, max: 20 }), (seed, numPrompts) => {
        const whole = randomWorkload({ ...OPTIONS, seed });
        expect(randomWorkload({ ...OPTIONS, seed, numPrompts })).toEqual(whole.slice(0, numPrompts));
      }),
      { numRuns: 20, seed: 2 },
    );
  });

  test("depends on the seed; one request differs from another behind the prefix", () => {
    expect(randomWorkload({ ...OPTIONS, seed: 8 })).not.toEqual(randomWorkload(OPTIONS));
    const [a, b] = randomWorkload({ ...OPTIONS, prefixLen: 5, inputLen: { kind: "fixed", tokens: 30 } });
    expect(a!.prompt.slice(5)).not.toEqual(b!.prompt.slice(5));
  });

  test("leaves fixed and uniform lengths as they are, and clips log-normal ones", () => {
    const long = { kind: "lognormal", mean: 4000, sigma: 0 } as const;
    const tokens = (inputLen: Lengths, outputLen: Lengths) => {
      const [request] = randomWorkload({ ...OPTIONS, inputLen, outputLen, prefixLen: 4 });
      return [request!.prompt.length, request!.outputLen];
    };
    expect(tokens(long, { kind: "fixed", tokens: 10 })).toEqual([54, 10]);
    expect(tokens({ kind: "fixed", tokens: 10 }, long)).toEqual([14, 50]);
    expect(tokens(long, long)).toEqual([63, 1]);
    expect(tokens({ kind: "fixed", tokens: 10 }, { kind: "fixed", tokens: 50 })).toEqual([14, 50]);
    expect(() => tokens({ kind: "fixed", tokens: 11 }, { kind: "uniform", from: 1, to: 50 })).toThrow(
      "--input-len is 11, --output-len uniform:1-50 and --prefix-len 4; together at most 64, the model's context or --max-seq-len",
    );
  });
});

/** `count` draws of one distribution, each from the stream of its own request. */
const draws = (inputLen: Lengths, count: number) =>
  randomWorkload({
    ...OPTIONS,
    inputLen,
    outputLen: { kind: "fixed", tokens: 1 },
    contextLength: 1e6,
    numPrompts: count,
    vocabSize: 2,
  }).map((r) => r.prompt.length);

describe("the distributions", () => {
  // The standard error of the mean is 200 · √(e − 1) / √4000 = 4.1.
  test("the log-normal one has the stated mean before it is clipped, and the median exp(−σ²/2) times it", () => {
    const lengths = draws({ kind: "lognormal", mean: 200, sigma: 1 }, 4000);
    expect(mean(lengths)).toBeGreaterThan(188);
    expect(mean(lengths)).toBeLessThan(212);
    expect(percentile(lengths, 50)).toBeGreaterThan(200 * Math.exp(-0.5) - 8);
    expect(percentile(lengths, 50)).toBeLessThan(200 * Math.exp(-0.5) + 8);
    const logs = lengths.map((n) => Math.log(n));
    expect(standardDeviation(logs)).toBeCloseTo(1, 1);
  });

  test("with no spread it is its mean", () => {
    expect(new Set(draws({ kind: "lognormal", mean: 37, sigma: 0 }, 20))).toEqual(new Set([37]));
  });

  test("the uniform one reaches both of its ends, and nothing beyond", () => {
    const ends = [drawLength({ kind: "uniform", from: 3, to: 5 }, () => 0)];
    ends.push(drawLength({ kind: "uniform", from: 3, to: 5 }, () => 1 - 2 ** -53));
    expect(ends).toEqual([3, 5]);
    const drawn = draws({ kind: "uniform", from: 3, to: 5 }, 900);
    for (const tokens of [3, 4, 5]) expect(drawn.filter((n) => n === tokens).length).toBeGreaterThan(240);
    expect(drawn.every((n) => n >= 3 && n <= 5)).toBe(true);
  });

  test("are read from text and written back", () => {
    fc.assert(
      fc.property(lengths, (given) => {
        expect(parseLengths("--input-len", lengthsText(given))).toEqual(given);
      }),
      { numRuns: 100, seed: 3 },
    );
  });

  test.each([
    "",
    "0",
    "-3",
    "1.5",
    "20 ",
    "uniform:5-3",
    "uniform:0-3",
    "uniform:3",
    "lognormal:200",
    "lognormal:0.5,1",
    "lognormal:200,4.5",
    "lognormal:200,-1",
    "normal:3,4",
    "1e3",
    "99999999999",
  ])("%j is refused", (text) => {
    expect(() => parseLengths("--input-len", text)).toThrow(BadInput);
    expect(() => parseLengths("--input-len", text)).toThrow(
      `--input-len is "${text}"; wanted a number of tokens`,
    );
  });
});

describe("arrivals", () => {
  const gaps = (burstiness: number) => {
    const times = arrivalTimes(4001, { requestRate: 5, burstiness, seed: 11 });
    return times.slice(1).map((t, i) => t - times[i]!);
  };

  test("of a Poisson process: exponential gaps with the mean of one by the rate", () => {
    const all = gaps(1);
    expect(mean(all)).toBeCloseTo(0.2, 2);
    // An exponential distribution's standard deviation is its mean; its median is ln 2 times the mean.
    expect(standardDeviation(all)).toBeCloseTo(0.2, 1);
    expect(percentile(all, 50)).toBeCloseTo(0.2 * Math.LN2, 2);
  });

  test.each([0.25, 2, 10])(
    "with burstiness %d keep their mean; the variance is by so much smaller",
    (burstiness) => {
      const all = gaps(burstiness);
      expect(mean(all) / 0.2).toBeGreaterThan(0.9);
      expect(mean(all) / 0.2).toBeLessThan(1.1);
      const variation = (standardDeviation(all) / 0.2) ** 2 * burstiness;
      expect(variation).toBeGreaterThan(0.8);
      expect(variation).toBeLessThan(1.2);
    },
  );

  test("without chance come like a metronome, or all at once", () => {
    const metronome = arrivalTimes(4, { requestRate: 2, burstiness: Number.POSITIVE_INFINITY, seed: 0 });
    expect(metronome).toEqual([0, 0.5, 1, 1.5]);
    expect(arrivalTimes(3, { requestRate: Number.POSITIVE_INFINITY, seed: 0 })).toEqual([0, 0, 0]);
  });
});

describe("a dataset", () => {
  const TEXT = [
    '{"prompt": "ab", "max_tokens": 5, "priority": -1, "salt": "x"}',
    "",
    '{"prompt_ids": [3, 4, 5], "output_len": 6}\r',
    '{"prompt": "cde"}',
    "",
  ].join("\n");
  const options = {
    outputLen: { kind: "fixed", tokens: 7 },
    vocabSize: 131,
    contextLength: 20,
    encode: (text: string) => [...text].map((c) => c.codePointAt(0)!),
    requestRate: Number.POSITIVE_INFINITY,
    seed: 1,
  } as const;
  const workload = (text: string, more = {}) =>
    datasetWorkload(parseDataset(text, "f.jsonl"), "f.jsonl", { ...options, ...more });

  test("gives its prompts as text or as ids, and what stands beside them", () => {
    expect(workload(TEXT)).toEqual([
      { prompt: [97, 98], outputLen: 5, arrival: 0, priority: -1, salt: "x" },
      { prompt: [3, 4, 5], outputLen: 6, arrival: 0 },
      { prompt: [99, 100, 101], outputLen: 7, arrival: 0 },
    ]);
  });

  test("gives its first lines when fewer are wanted, at the times of a random workload", () => {
    const two = workload(TEXT, { numPrompts: 2, requestRate: 3 });
    expect(two.map((r) => r.arrival)).toEqual(arrivalTimes(2, { requestRate: 3, seed: 1 }));
  });

  test("clips drawn lengths to the context, not those that a line asks for", () => {
    const long = { outputLen: { kind: "lognormal", mean: 5000, sigma: 0 } };
    expect(workload(TEXT, long).at(-1)!.outputLen).toBe(17);
    expect(() => workload('{"prompt": "ab", "max_tokens": 19}')).toThrow(
      "f.jsonl, line 1: the prompt has 2 tokens and the answer 19; together at most 20, the model's context or --max-seq-len",
    );
    expect(() => workload('{"prompt": "abcdefghijklmn"}')).toThrow(
      "line 1: the prompt has 14 tokens and the answer --output-len 7; together",
    );
  });

  test.each([
    ["", /^f\.jsonl: no requests; wanted a line such as/],
    ["\n\n", /^f\.jsonl: no requests/],
    ['{"prompt": "a"}\nhello', /^f\.jsonl, line 2: got hello; wanted a JSON object$/],
    ['{"prompt": "a"}\n\n{"prompt": "b",}', /^f\.jsonl, line 3: got .*; wanted a JSON object$/],
    ["[1]", /^f\.jsonl, line 1: is \[1\]; wanted an object$/],
    ["null", /^f\.jsonl, line 1: is null; wanted an object$/],
    ["{}", /^f\.jsonl, line 1: has no prompt; wanted prompt or prompt_ids$/],
    ['{"prompt": "a", "prompt_ids": [1]}', /line 1: has two prompts; wanted prompt or prompt_ids$/],
    ['{"prompt": 5}', /line 1: prompt is 5; wanted a text$/],
    ['{"prompt": ""}', /line 1: prompt is empty; wanted at least one token$/],
    ['{"prompt_ids": []}', /line 1: prompt_ids is \[\]; wanted at least one token id$/],
    ['{"prompt_ids": [1, -1]}', /line 1: prompt_ids\.1 is -1; wanted an integer of at least 0$/],
    ['{"prompt_ids": [1.5]}', /line 1: prompt_ids\.0 is 1\.5; wanted an integer of at least 0$/],
    ['{"prompt_ids": [131]}', /line 1: prompt_ids has 131; wanted ids from 0 to 130$/],
    ['{"prompt": "a", "max_tokens": 0}', /line 1: max_tokens is 0; wanted an integer from 1$/],
    ['{"prompt": "a", "max_tokens": "5"}', /line 1: max_tokens is "5"; wanted an integer from 1$/],
    ['{"prompt": "a", "max_tokens": 1, "output_len": 1}', /which mean the same; wanted one of them$/],
    ['{"prompt": "a", "temperature": 1}', /line 1: has "temperature"; wanted only prompt, prompt_ids, /],
    ['{"prompt": "a", "salt": 1}', /line 1: salt is 1; wanted a text$/],
    ['{"prompt": "a", "priority": 0.5}', /line 1: priority is 0\.5; wanted an integer$/],
  ])("%j is refused with its line", (text, message) => {
    expect(() => workload(text)).toThrow(BadInput);
    expect(() => workload(text)).toThrow(message);
  });

  test("more prompts than it has are refused", () => {
    expect(() => workload(TEXT, { numPrompts: 4 })).toThrow(
      "--num-prompts is 4; f.jsonl has only 3 requests",
    );
  });
});
