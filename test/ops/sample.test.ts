import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { philox4x32, uniform } from "../../src/generate/random.ts";
import type { SamplingOptions } from "../../src/generate/sampler.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { parseKernel, readShader } from "../../src/gpu/wgsl.ts";
import {
  LISTED_SETTINGS,
  NO_TOKEN,
  sample,
  sampleListed,
  setListed,
  settingsWords,
} from "../../src/ops/sample.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, openTestGpu, withGuardsAll } from "../gpu-fixture.ts";
import {
  argumentsOf,
  bestsOf,
  bitSet,
  type Case,
  choose,
  freeAll,
  numbers,
  ROWS,
  randomCases,
  stepArrays,
  verdict,
} from "./sample-rows.ts";

const gpu = await openTestGpu();

const caseOf = (
  logits: ArrayLike<number>,
  options: Partial<SamplingOptions> = {},
  history: readonly number[] = [],
): Case => ({
  name: "given",
  logits: Float32Array.from(logits),
  history,
  options: { temperature: 1, seed: 5, ...options },
  sequenceId: 3,
  step: 0,
});

/** Counts of verdicts, with every case that is wrong. */
function judge(cases: readonly Case[], tokens: readonly number[]) {
  const verdicts = cases.map((given, i) => verdict(given, tokens[i]!));
  const count = (wanted: string) => verdicts.filter((v) => v === wanted).length;
  const wrong = cases.filter((_, i) => verdicts[i] === "wrong");
  return {
    same: count("same"),
    edge: count("edge"),
    filter: count("filter"),
    wrong: wrong.map(({ name, options }) => ({ name, options })),
  };
}

describe("the CPU sampler's tokens", () => {
  test("in all 144 golden cases, 10 tokens one after another", async () => {
    const golden: {
      logits: number[];
      history: number[];
      cases: Record<"temperature" | "top_k" | "top_p" | "min_p" | "repetition_penalty", number | null>[];
    } = JSON.parse(readFileSync(new URL("../golden/sampling.json", import.meta.url), "utf8"));
    const STEPS = 10;
    const cases = golden.cases.map((row, i): Case => {
      const options = {
        temperature: row.temperature!,
        topK: row.top_k ?? undefined,
        topP: row.top_p ?? undefined,
        minP: row.min_p ?? undefined,
        repetitionPenalty: row.repetition_penalty ?? undefined,
      };
      return { ...caseOf(golden.logits, { ...options, seed: i * 1000 }, golden.history), sequenceId: i };
    });
    const buffers = argumentsOf(gpu, cases, { ring: STEPS });
    for (let i = 0; i < STEPS; i++) sample(buffers);
    const tokens = await buffers.tokens.readIntegers();
    freeAll(buffers);
    // Each token was penalised from the next step on: the kernel adds what it chose to `seen`.
    const histories = cases.map(() => [...golden.history]);
    const all: Case[] = [];
    for (let step = 0; step < STEPS; step++)
      cases.forEach((given, s) => {
        all.push({ ...given, step, history: [...histories[s]!] });
        histories[s]!.push(tokens[step * cases.length + s]!);
      });
    const { same, wrong } = judge(all, [...tokens]);
    expect(wrong).toEqual([]);
    expect(same).toBeGreaterThanOrEqual(144 * STEPS - 3);
  });

  // 1,000 cases. Those with a verdict of edge or filter are named in `verdict`; of 740 others in the making it was one.
  test.each([
    { vocabulary: 1, count: 20, why: "one token" },
    { vocabulary: 2, count: 30, why: "less than a quad" },
    { vocabulary: 5, count: 90, why: "one past a quad" },
    { vocabulary: 31, count: 100, why: "less than a word of `seen`" },
    { vocabulary: 64, count: 100, why: "as many as the smaller groups" },
    { vocabulary: 130, count: 100, why: "one quad past a team's lanes" },
    {
      vocabulary: 503,
      count: 140,
      why: "nearly all in the list; a prime, or top-p would often end between equal tokens",
    },
    { vocabulary: 1023, count: 100, why: "lists that overflow" },
    { vocabulary: 2000, count: 150, why: "some lanes with two quads" },
    { vocabulary: 4097, count: 146, why: "one past a quad for each lane" },
    { vocabulary: 50257, count: 24, why: "GPT-2's vocabulary" },
  ])("in $count random cases with V = $vocabulary: $why", async ({ vocabulary, count }) => {
    const cases = randomCases(numbers(vocabulary), vocabulary, count);
    const { same, wrong } = judge(cases, await choose(gpu, cases));
    expect(wrong).toEqual([]);
    expect(same).toBeGreaterThanOrEqual(count - 2);
  });

  test("where a team has more quads than there are lanes", async () => {
    const random = numbers(8);
    const logits = ROWS["like a model's"]!(random, 140_001);
    const cases = [{}, { topP: 0.9 }, { topK: 40 }].map((options) => caseOf(logits, options));
    expect(judge(cases, await choose(gpu, cases)).wrong).toEqual([]);
  });

  test("at extreme temperatures and logits", async () => {
    const extreme = [3e38, -3e38, 3e38, Number.NEGATIVE_INFINITY];
    const options = [{ temperature: 5e-324 }, { temperature: 1e-10 }, { temperature: 0 }, { topP: 1e-40 }];
    const cases = options.map((o) => caseOf(extreme, o));
    for (const temperature of [1e30, 1e308]) cases.push(caseOf([3, -3, 1, 2], { temperature, topP: 0.9 }));
    for (const repetitionPenalty of [1e-38, 1e300])
      cases.push(caseOf([3, -3, 0, 2], { repetitionPenalty, temperature: 0 }, [0, 1, 2]));
    for (const given of cases) expect(verdict(given, (await choose(gpu, [given]))[0]!)).toBe("same");
  });
});

describe("greedy", () => {
  test("the lowest of equal ids wins, wherever they lie", async () => {
    const ties = [
      [0, 2999],
      [1, 4, 5],
      [127, 128],
      [2047, 2048],
      [2998, 2999],
      [3, 95, 96, 1500],
    ];
    const cases = ties.map((ids) => {
      const logits = new Float32Array(3000).fill(-1);
      for (const id of ids) logits[id] = id % 2 ? -0 : 0;
      return caseOf(logits, { temperature: 0, topK: 2, topP: 0.1, minP: 1 });
    });
    expect(await choose(gpu, cases)).toEqual(ties.map(([first]) => first));
  });

  test("the zeros behind a row of negative logits do not win", async () => {
    const cases = [0, 1].map((temperature) => caseOf([-9, -8, -7, -6, -5], { temperature, topK: 1 }));
    expect(await choose(gpu, cases)).toEqual([4, 4]);
  });

  test("the penalty counts once, for those seen, by the logit's sign", async () => {
    const cases = [
      caseOf([1, 5, 4, -1], { temperature: 0, repetitionPenalty: 1.5 }, [1]),
      caseOf([1, 5, 4, -1], { temperature: 0, repetitionPenalty: 1.2 }, [1, 1, 1]),
      caseOf([-1, -1.5, -9, -9], { temperature: 0, repetitionPenalty: 2 }, [0]),
    ];
    expect(await choose(gpu, cases)).toEqual([2, 1, 1]);
  });
});

test("random numbers are the words of generate/random.ts", async () => {
  const main = `
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) id: vec3u) {
  let at = id.x * 6u;
  let words = philox4x32(vec4u(x[at], x[at + 1u], x[at + 2u], x[at + 3u]), vec2u(x[at + 4u], x[at + 5u]));
  for (var i = 0u; i < 4u; i++) {
    y[id.x * 5u + i] = words[i];
  }
  y[id.x * 5u + 4u] = bitcast<u32>(uniform_random(vec2u(x[at + 4u], x[at + 5u]), x[at + 1u], x[at]));
}`;
  const code = `${readShader("philox")}\n${main}`;
  const pieces = [{ file: "test", firstLine: 1 }];
  const compiled = gpu.compile(
    { name: "philox", code, pieces, ...parseKernel("philox", code) },
    "philox",
    {},
  );
  const random = numbers(1);
  const inputs = [[0, 0, 0, 0, 0, 0], new Array<number>(6).fill(0xffffffff)];
  while (inputs.length < 64) inputs.push(Array.from({ length: 6 }, () => Math.floor(random() * 2 ** 32)));
  const x = Tensor.from(gpu, [64, 6], inputs.flat(), { dtype: "u32" });
  const y = Tensor.empty(gpu, [64, 5], { dtype: "u32" });
  gpu.dispatch("philox", compiled, undefined, [x, y], [64, 1, 1]);
  const words = await y.readIntegers();
  const floats = new Float32Array(words.buffer);
  inputs.forEach(([c0, c1, c2, c3, low, high], i) => {
    const want = philox4x32([c0!, c1!, c2!, c3!], [low!, high!]);
    expect([...words.subarray(i * 5, i * 5 + 4)]).toEqual(want);
    const seed = (BigInt(high!) << 32n) | BigInt(low!);
    expect(floats[i * 5 + 4]).toBe(uniform(seed, c1!, c0!));
  });
  x.free();
  y.free();
});

describe("the step arrays", () => {
  // token_ids, positions, slot_mapping, context_lens, generated, ring
  const before = [
    [9, 6, 1, 7, 3, 2],
    [9, 7, 1, 8, 0, 0],
    [9, 8, 1, 9, 50, 7],
    [9, 14, 1, 15, 1, 1],
    [9, 15, 1, 16, 1, 4],
  ];
  const best = [4, 0, 6, 32, 33];
  const cases = best.map((id) => {
    const logits = new Float32Array(34);
    logits[id] = 1;
    return caseOf(logits, { temperature: 0 }, [1, id === 32 ? 33 : 2]);
  });

  test.each([
    {
      name: "strips",
      pageSize: undefined,
      table: [[100], [200], [300], [400], [500]],
      slots: [107, 208, 309, 415, 0],
    },
    {
      name: "pages, over a page's edge and not",
      pageSize: 4,
      table: [
        [7, 3, 0, 0],
        [7, 3, 9, 0],
        [1, 2, 8, 0],
        [1, 2, 3, 4],
        [1, 2, 3, 4],
      ],
      slots: [15, 36, 33, 19, 0],
    },
  ])("go on by one token: $name; nothing else is touched", async ({ pageSize, table, slots }) => {
    const outputs = await withGuardsAll(gpu, () => {
      const shape = pageSize === undefined ? [5] : [5, 4];
      const options = {
        ring: 3,
        maxPositions: 16,
        sequences: before,
        slots: { table: Tensor.from(gpu, shape, table.flat(), { dtype: "u32" }), pageSize },
      };
      const buffers = argumentsOf(gpu, cases, options);
      sample(buffers);
      return [buffers.step, buffers.tokens, buffers.seen, buffers.logits];
    });
    const [step, tokens, seen, logits] = outputs.map(({ bits }) => bits);
    const after = before.map(([, position, , , generated, ring], s) => [
      best[s]!,
      position! + 1,
      slots[s]!,
      position! + 2,
      generated! + 1,
      ring! + 1,
    ]);
    expect([...step!]).toEqual(stepArrays(after));
    const written = new Array<number>(15).fill(0xdead);
    before.forEach(([, , , , , ring], s) => {
      written[(ring! % 3) * 5 + s] = best[s]!;
    });
    expect([...tokens!]).toEqual(written);
    expect([...seen!]).toEqual(cases.flatMap(({ history }, s) => [...bitSet(34, [...history, best[s]!])]));
    expect(logits!.length).toBe(5 * 36);
  });
});

describe("a row that nothing can be chosen from", () => {
  const bad = [
    ...[Number.NaN, Number.POSITIVE_INFINITY].flatMap((x) => [
      [1, x, 2],
      [x, 1, 1, 1, 1],
      [1, 1, 1, 1, x],
    ]),
    new Array<number>(5).fill(Number.NEGATIVE_INFINITY),
  ].map((row) => [...row, ...new Array<number>(5 - row.length).fill(0)]);

  test.each([0, 1])("gives NO_TOKEN and computes token 0 next, at temperature %i", async (temperature) => {
    for (const topK of [0, 3]) {
      const cases = bad.map((row) => caseOf(row, { temperature, topK, repetitionPenalty: 1.5 }, [1]));
      const negative = new Float32Array(Uint32Array.of(0xffc00001, 0, 0, 0, 0).buffer);
      cases.push({ ...cases[0]!, logits: negative });
      const buffers = argumentsOf(gpu, cases);
      sample(buffers);
      expect(new Set(await buffers.tokens.readIntegers())).toEqual(new Set([NO_TOKEN]));
      const step = await buffers.step.readIntegers();
      expect([...step]).toEqual(stepArrays(cases.map(() => [0, 1, 1, 2, 1, 1])));
      expect(new Set(await buffers.seen.readIntegers())).toEqual(new Set([2]));
      freeAll(buffers);
    }
  });

  test("leaves its neighbours alone", async () => {
    const cases = [caseOf([1, 2, 3]), caseOf([1, Number.NaN, 3]), caseOf([1, 2, 3])];
    const [first, second, third] = await choose(gpu, cases);
    expect([second, third]).toEqual([NO_TOKEN, first]);
    expect(first).toBeLessThan(3);
  });
});

describe("with what the head says is best", () => {
  // Each number of shares is a kernel to compile, half a second: the tests here take the same few.
  // Shares and stripes of a GPU's head, of the software adapter's, and of a head in blocks; some shares have no logits.
  test.each([
    { vocabulary: 1, count: 8, shares: 1, stripe: 4 },
    { vocabulary: 130, count: 40, shares: 40, stripe: 4, unknown: true },
    { vocabulary: 4097, count: 40, shares: 1056, stripe: 4, unknown: true },
    { vocabulary: 2000, count: 24, shares: 7, stripe: 6 },
  ])(
    "V = $vocabulary, $shares shares, stripes of $stripe: the tokens are those of a look at every logit",
    async ({ vocabulary, count, shares, stripe, unknown }) => {
      const random = numbers(vocabulary + 1);
      const cases = randomCases(random, vocabulary, count).map((given, i) => {
        const repetitionPenalty = i % 4 === 0 ? 1.3 : undefined;
        const topK = i % 4 === 1 ? 40 : given.options.topK;
        return { ...given, options: { ...given.options, repetitionPenalty, topK } };
      });
      const wanted = await choose(gpu, cases);
      expect(await choose(gpu, cases, { bests: bestsOf(gpu, cases, shares, stripe) })).toEqual(wanted);
      if (!unknown) return; // SwiftShader takes 2 seconds for each kernel, so the same of no known stripe in two of them.
      const bests = { ...bestsOf(gpu, cases, shares, stripe), stripe: undefined };
      expect(await choose(gpu, cases, { bests })).toEqual(wanted);
    },
  );

  test("greedy: the lowest of equal ids wins, whichever shares they are of; no logit is looked at", async () => {
    const ties = [
      [0, 2999],
      [5, 4, 9],
      [44, 3, 2047],
      [127, 128],
      [2998, 2999],
      [1500, 96, 95],
    ];
    const cases = ties.map((ids) => {
      const logits = new Float32Array(3000).fill(-1);
      for (const id of ids) logits[id] = id % 2 ? -0 : 0;
      return caseOf(logits, { temperature: 0 });
    });
    const wanted = ties.map((ids) => Math.min(...ids));
    for (const [shares, stripe, ...modes] of [
      [11, 4, false, true],
      [700, 4, true],
      [8, 64, false],
      [750, 1, true],
    ] as const)
      for (const greedy of modes) {
        const blind = cases.map((given) => ({ ...given, logits: new Float32Array(3000).fill(Number.NaN) }));
        expect(await choose(gpu, blind, { bests: bestsOf(gpu, cases, shares, stripe), greedy })).toEqual(
          wanted,
        );
      }
  });

  test("where more shares than a list holds have one of the best", async () => {
    const random = numbers(9);
    const cases = ["equal", "few values, many ties", "rising"].map((kind) =>
      caseOf(ROWS[kind]!(random, 6001), { topK: 40, topP: 0.9 }),
    );
    const wanted = await choose(gpu, cases);
    expect(await choose(gpu, cases, { bests: bestsOf(gpu, cases, 1056, 4) })).toEqual(wanted);
  });

  test("greedy with a penalty: the scores decide", async () => {
    const cases = [
      caseOf([1, 5, 4, -1], { temperature: 0, repetitionPenalty: 1.5 }, [1]),
      caseOf([1, 5, 4, -1], { temperature: 0 }, [1]),
    ];
    expect(await choose(gpu, cases, { bests: bestsOf(gpu, cases, 11, 4), greedy: true })).toEqual([2, 1]);
  });

  test("a row that nothing can be chosen from gives NO_TOKEN", async () => {
    const minus = Number.NEGATIVE_INFINITY;
    const bad = [
      [1, Number.NaN, 2, 3, 4, 5],
      [1, 2, 3, 4, Number.POSITIVE_INFINITY, 6],
      new Array<number>(6).fill(minus),
    ];
    for (const temperature of [0, 1])
      for (const topK of [0, 3])
        for (const [shares, stripe] of [
          [2, 1],
          [11, 4],
        ] as const) {
          const cases = [...bad, [minus, minus, minus, minus, -3, minus]].map((row) =>
            caseOf(row, { temperature, topK }),
          );
          const tokens = await choose(gpu, cases, { bests: bestsOf(gpu, cases, shares, stripe) });
          expect(tokens).toEqual([NO_TOKEN, NO_TOKEN, NO_TOKEN, 4]);
        }
  });
});

describe("rows that say where they belong", () => {
  test("the tokens of a batch that is advanced, wherever they go; padding and rows without a penalty note nothing", async () => {
    const cases = randomCases(numbers(12), 503, 40);
    const wanted = await choose(gpu, cases);
    const { length } = cases;
    const hasPenalty = cases.map(({ options }) => (options.repetitionPenalty ?? 1) !== 1);
    expect(new Set(hasPenalty).size).toBe(2);
    // Every third row is padding; tokens and rows of tokens seen lie backwards.
    const rows = cases.flatMap((given, i) => (i % 2 ? [{ given, i }, undefined] : [{ given, i }]));
    const settings = new Uint32Array(LISTED_SETTINGS * rows.length);
    const logits = new Float32Array(503 * rows.length).fill(Number.NaN);
    rows.forEach((row, r) => {
      setListed(settings, LISTED_SETTINGS * r, 0, NO_TOKEN);
      if (!row) return;
      const { options, sequenceId, step, logits: x } = row.given;
      settings.set(settingsWords(options, sequenceId), LISTED_SETTINGS * r);
      const seen = hasPenalty[row.i] ? length - 1 - row.i : undefined;
      setListed(settings, LISTED_SETTINGS * r, step, 2 * (length - 1 - row.i), seen);
      logits.set(x, 503 * r);
    });
    const histories = cases.map(({ history }) => history).reverse();
    const [tokens, seen] = await withGuardsAll(gpu, () => {
      const integers = (shape: number[], values: ArrayLike<number>) =>
        Tensor.from(gpu, shape, values, { dtype: "u32" });
      const tokens = integers([2 * length], new Array(2 * length).fill(0xdead));
      const seen = integers(
        [length, 16],
        histories.flatMap((history) => [...bitSet(503, history)]),
      );
      sampleListed({
        logits: Tensor.from(gpu, [rows.length, 503], logits),
        settings: integers([rows.length, LISTED_SETTINGS], settings),
        ...{ seen, tokens, spare: integers([64], new Array(64).fill(0)) },
      });
      return [tokens, seen];
    });
    expect([...tokens!.bits]).toEqual([...wanted].reverse().flatMap((token) => [token, 0xdead]));
    const noted = cases.map(({ history }, i) =>
      bitSet(503, hasPenalty[i] ? [...history, wanted[i]!] : history),
    );
    expect([...seen!.bits]).toEqual(noted.reverse().flatMap((words) => [...words]));
  });

  test("need a row of settings each, of 12 words", () => {
    const { settings, logits, seen, tokens, ...rest } = argumentsOf(gpu, [caseOf([1, 2, 3])]);
    const listed = { logits, settings, seen, tokens, spare: tokens };
    expect(() => sampleListed(listed)).toThrow(
      "sample: settings is [1, 8] but logits are [1, 3]; wanted [1, 12]",
    );
    freeAll({ settings, logits, seen, tokens, ...rest });
  });
});

test("the same call 20 times gives the same tokens", async () => {
  // A token for each row of the ring, the steps before it undone each time.
  const cases = randomCases(numbers(4), 1500, 10);
  const buffers = argumentsOf(gpu, cases, { ring: 20 });
  const { step, seen } = buffers;
  const [stepBefore, seenBefore] = [await step.readIntegers(), await seen.readIntegers()];
  for (let i = 0; i < 20; i++) {
    const ring = stepBefore.slice();
    ring.fill(i, 5 * step.cols);
    gpu.write(step, ring);
    gpu.write(seen, seenBefore);
    sample(buffers);
  }
  const tokens = [...(await buffers.tokens.readIntegers())];
  freeAll(buffers);
  expect(tokens).toEqual(Array.from({ length: 20 }, () => tokens.slice(0, 10)).flat());
  expect(tokens).not.toContain(0xdead);
});

test("many threads give the tokens that few give, bit for bit", async () => {
  const { kernels } = gpu;
  const adapter = gpu.info.software ? "software" : "auto";
  const other = await Gpu.open({ adapter, kernels, forms: gpu.forms === "gpu" ? "software" : "gpu" });
  try {
    const cases = randomCases(numbers(6), 3001, 24);
    const wanted = await choose(gpu, cases);
    expect(await choose(other, cases)).toEqual(wanted);
    expect(await choose(other, cases, { bests: bestsOf(other, cases, 750, 4) })).toEqual(wanted);
  } finally {
    await other.close();
  }
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, async () => {
    await choose(gpu, [caseOf([1, 2, 3])]);
  });
});

describe("wrong calls", () => {
  const wrong = (change: (buffers: ReturnType<typeof argumentsOf>) => object) => {
    const buffers = argumentsOf(gpu, [caseOf([1, 2, 3]), caseOf([1, 2, 3])]);
    const made = change(buffers);
    try {
      sample({ ...buffers, ...made });
    } finally {
      freeAll(buffers);
      for (const value of Object.values(made)) if (value instanceof Tensor) value.free();
    }
  };
  const integers = (...shape: number[]) => Tensor.empty(gpu, shape, { dtype: "u32" });

  test.each([
    [() => ({ settings: integers(2, 7) }), "sample: settings is [2, 7] but logits are [2, 3]; wanted [2, 8]"],
    [
      () => ({ bests: { table: integers(3, 4), stripe: 4 } }),
      "sample: bests is [3, 4] but logits are [2, 3]; wanted [2, 2 · shares]",
    ],
    [() => ({ seen: integers(2, 2) }), "sample: seen is [2, 2] but logits are [2, 3]; wanted [2, 1]"],
    [
      () => ({ step: integers(5, 64) }),
      "sample: step is [5, 64] but logits are [2, 3]; wanted [6, n] with n of at least 2",
    ],
    [() => ({ step: integers(6, 1) }), "sample: step is [6, 1]"],
    [() => ({ tokens: integers(4, 3) }), "sample: tokens is [4, 3] but logits are [2, 3]; wanted [ring, 2]"],
    [
      ({ tokens }: ReturnType<typeof argumentsOf>) => ({ slots: { table: tokens, pageSize: 0 } }),
      "sample: a page of 0 slots",
    ],
    [
      ({ settings }: ReturnType<typeof argumentsOf>) => ({ slots: { table: settings, pageSize: 16 } }),
      "sample: 1024 positions do not fit into 8 pages of 16 slots",
    ],
    [
      ({ settings }: ReturnType<typeof argumentsOf>) => ({ slots: { table: settings } }),
      "sample: the slot table is [2, 8]",
    ],
  ])("%#: are refused by name", (change, message) => {
    expect(() => wrong(change)).toThrow(message);
  });

  test("settings: the words of each field, and a sequence id out of range", () => {
    const words = settingsWords(
      { temperature: 0.5, topK: 7, topP: 0.25, minP: 0.125, repetitionPenalty: 2, seed: 2n ** 63n + 5n },
      9,
    );
    const [temperature, , topP, minP, penalty] = new Float32Array(words.buffer);
    expect([temperature, words[1], topP, minP, penalty]).toEqual([0.5, 7, 0.25, 0.125, 2]);
    expect([...words.subarray(5)]).toEqual([5, 2 ** 31, 9]);
    const off = settingsWords({ temperature: 0, seed: 0 }, 0);
    expect([off[1], ...new Float32Array(off.buffer).slice(2, 5)]).toEqual([0, 1, 0, 1]);
    expect(() => settingsWords({ temperature: 1, seed: 0 }, -1)).toThrow("sample: sequence id -1");
  });
});
