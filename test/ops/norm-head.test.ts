import { describe, expect, test } from "vitest";
import type { Gpu } from "../../src/gpu/gpu.ts";
import { layernorm } from "../../src/ops/layernorm.ts";
import { matmulTransposed } from "../../src/ops/matmul-transposed.ts";
import { normHead } from "../../src/ops/norm-head.ts";
import { scope, Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, withGuards, withGuardsAll } from "../gpu-fixture.ts";
import { expectClose, matmulTolerance, scaledTo } from "../numerics.ts";
import * as reference from "../reference.ts";
import { randomFloats, VALUES, VALUES_NAMES } from "../values.ts";
import { openForms } from "./fused-forms.ts";
import { WEIGHT_DTYPES } from "./matrix-of.ts";
import { bestRow } from "./sample-rows.ts";
import { storedTable, type TableDtype, tableOf } from "./table-of.ts";

// With subgroups where the adapter has them, and without.
const FORMS = await openForms("portable");
const EPSILON = 1e-5;

// A workgroup has 64 / LANES rows of w at a time, 4 on a GPU and 64 on the software adapter, and 1 or 4 rows of x; a subgroup
// has one row of w.
const SHAPES: readonly { rows: number; K: number; N: number; dtypes?: readonly TableDtype[]; why: string }[] =
  [
    { rows: 1, K: 1, N: 1, why: "one product, all else is padding; a single value is its own mean" },
    { rows: 2, K: 3, N: 3, dtypes: ["f32"], why: "fewer columns than a quad, two of four rows of x" },
    { rows: 1, K: 24, N: 63, dtypes: ["i8"], why: "one thread idle on the software adapter" },
    { rows: 4, K: 64, N: 64, dtypes: ["f32"], why: "whole workgroups, one quad of k a lane" },
    { rows: 5, K: 65, N: 65, why: "one past it in every direction" },
    { rows: 1, K: 128, N: 12, dtypes: ["f16"], why: "what four lanes ask for ahead" },
    { rows: 2, K: 132, N: 12, dtypes: ["i8"], why: "one quad past it" },
    {
      rows: 1,
      K: 768,
      N: 519,
      dtypes: ["f16"],
      why: "GPT-2's width; workgroups that go round on the software adapter",
    },
    { rows: 1, K: 1600, N: 5, dtypes: ["i8"], why: "GPT-2 XL's width" },
    { rows: 1, K: 3, N: 50257, dtypes: ["f32"], why: "GPT-2's vocabulary: every workgroup goes round" },
  ];

interface Case {
  readonly x: Float32Array;
  readonly weight: Float32Array;
  readonly shift: Float32Array;
  /** Rows of w in each of its blocks. */
  readonly blocks?: readonly number[];
  readonly w: Float32Array;
}
const uniform = (rows: number, K: number, N: number): Case => ({
  x: randomFloats(1, rows * K),
  weight: randomFloats(2, K),
  shift: randomFloats(3, K),
  w: randomFloats(4, K * N),
});

/** The fused kernel, or the two that it stands for, between guard words. */
const run = (on: Gpu, dtype: TableDtype, how: "fused" | "chain", { x, weight, shift, w, blocks }: Case) =>
  withGuards(on, () => {
    const K = weight.length;
    const input = Tensor.from(on, [x.length / K, K], x);
    const norm = Tensor.from(on, [2, K], [...weight, ...shift]);
    const table = tableOf(on, w, K, dtype, blocks);
    if (how === "fused") return normHead(input, norm, EPSILON, table).logits;
    return matmulTransposed(layernorm(input, norm, EPSILON), table);
  });

describe.each(FORMS)("the form for $form", ({ on }) => {
  test.each(SHAPES)(
    "[$rows, $K] · [$N, $K]ᵀ is layernorm and matmulTransposed, bit for bit: $why",
    async ({ rows, K, N, dtypes = WEIGHT_DTYPES }) => {
      const given = uniform(rows, K, N);
      const normed = reference.layernorm(given.x, given.weight, given.shift, EPSILON);
      for (const dtype of dtypes) {
        const fused = await run(on, dtype, "fused", given);
        expect(fused.bits).toEqual((await run(on, dtype, "chain", given)).bits);
        const { values } = reference.matmulTransposed(normed, storedTable(given.w, K, dtype), K);
        expectClose(fused.values, values, scaledTo(values, matmulTolerance(K, dtype)));
      }
    },
  );

  test("a matrix in blocks gives the bits of the whole one", async () => {
    const given = uniform(5, 65, 131);
    const whole = await run(on, "i8", "fused", given);
    for (const blocks of [
      [64, 67],
      [1, 65, 3, 62],
      [130, 1],
    ])
      expect((await run(on, "i8", "fused", { ...given, blocks })).bits).toEqual(whole.bits);
  });

  test.each(VALUES_NAMES)("the bits of the two for values of x: %s", async (name) => {
    const given = { ...uniform(2, 65, 65), x: VALUES[name](2, 65, 6) };
    expect((await run(on, "f32", "fused", given)).bits).toEqual((await run(on, "f32", "chain", given)).bits);
  });

  test("a row alone and the row in a batch are the same bits", async () => {
    const given = uniform(5, 65, 65);
    const batch = await run(on, "f16", "fused", given);
    for (const r of [1, 4]) {
      const alone = await run(on, "f16", "fused", { ...given, x: given.x.slice(r * 65, (r + 1) * 65) });
      expect(alone.values).toEqual(batch.values.slice(r * 65, (r + 1) * 65));
    }
  });

  test("the same call 20 times gives the same bits", async () => {
    const x = Tensor.from(on, [1, 65], randomFloats(7, 65));
    const norm = Tensor.from(on, [2, 65], randomFloats(8, 130));
    const w = tableOf(on, randomFloats(9, 65 * 65), 65, "f32");
    await expectSameBits(() => scope(on, () => normHead(x, norm, EPSILON, w).logits));
  });
});

test("where four rows of x do not fit workgroup memory, a workgroup has one", async () => {
  const { on } = FORMS[0]!;
  // 4 · 16 bytes · K / 4 and the sums are more than that.
  const K = 4 * Math.ceil(on.limits.maxComputeWorkgroupStorageSize / 64);
  expect(K).toBeLessThan(5000);
  const given = uniform(2, K, 3);
  expect((await run(on, "f32", "fused", given)).bits).toEqual((await run(on, "f32", "chain", given)).bits);
});

test("the ledger is back where it started", async () => {
  const { on } = FORMS[0]!;
  await expectLedgerUnchanged(on, () => {
    const x = Tensor.from(on, [5, 5], randomFloats(10, 25));
    const norm = Tensor.from(on, [2, 5], randomFloats(11, 10));
    const { logits, bests } = normHead(x, norm, EPSILON, { blocks: [x, x] });
    logits.free();
    bests.table.free();
    x.free();
    norm.free();
  });
});

describe("wrong calls", () => {
  const { on } = FORMS[0]!;
  const empty = (...shape: number[]) => Tensor.empty(on, shape);
  const [x, norm, w] = [empty(2, 8), empty(2, 8), empty(5, 8)];

  test("norm is as wide as x", () => {
    expect(() => normHead(x, empty(2, 9), EPSILON, { blocks: [w] })).toThrow(
      "norm-head: x is [2, 8] but norm is [2, 9]; wanted [2, 8]",
    );
  });

  test("w has x's columns, in blocks that are alike, with scales where it is bytes", () => {
    expect(() => normHead(x, norm, EPSILON, { blocks: [empty(5, 7)] })).toThrow(
      "norm-head: x is [2, 8] but w is [5, 7]; columns must be equal",
    );
    expect(() => normHead(x, norm, EPSILON, { blocks: [w, empty(5, 7)] })).toThrow(
      "norm-head: w has blocks of f32 with 8 columns and of f32 with 7; all must be alike",
    );
    const bytes = Tensor.empty(on, [5, 8], { dtype: "i8" });
    expect(() => normHead(x, norm, EPSILON, { blocks: [bytes] })).toThrow(
      "norm-head: w is i8 with 5 rows and no scales; wanted 5",
    );
    expect(() => normHead(x, norm, EPSILON, { blocks: [] })).toThrow("norm-head: w has no blocks");
  });
});

describe.each(FORMS)("the best logits, in the form for $form", ({ on }) => {
  /** Logits and bests between guard words, and the stripe. */
  const best = async ({ x, weight, shift, w, blocks }: Case, dtype: TableDtype = "f32") => {
    const K = weight.length;
    let stripe: number | undefined;
    const [logits, bests] = await withGuardsAll(on, () => {
      const input = Tensor.from(on, [x.length / K, K], x);
      const norm = Tensor.from(on, [2, K], [...weight, ...shift]);
      const result = normHead(input, norm, EPSILON, tableOf(on, w, K, dtype, blocks));
      stripe = result.bests.stripe;
      return [result.logits, result.bests.table];
    });
    const rows = x.length / K;
    const row = (r: number) => logits!.values.slice((r * w.length) / K, ((r + 1) * w.length) / K);
    const width = bests!.bits.length / rows;
    return {
      logits: Array.from({ length: rows }, (_, r) => row(r)),
      stripe,
      shares: width / 2,
      bests: bests!.bits,
    };
  };

  test.each([
    { rows: 1, N: 1 },
    { rows: 1, N: 63 },
    { rows: 3, N: 66 },
    { rows: 5, N: 4100, dtype: "i8" as const },
    { rows: 1, N: 9000 },
  ])("of [$rows, 3] · [$N, 3]ᵀ: each share's key and lowest id", async ({ rows, N, dtype }) => {
    const { logits, bests, shares, stripe } = await best(uniform(rows, 3, N), dtype);
    expect([...bests]).toEqual(logits.flatMap((row) => bestRow(row, shares, stripe!)));
  });

  test("of equal ones, and both zeros, the lowest id of each share", async () => {
    // All of x's rows are shift, (0, 1): a logit is w's second column.
    const w = Float32Array.from({ length: 2 * 519 }, (_, i) => (i % 2 ? [0, -0, -1][i % 3]! : 0));
    const given = { x: randomFloats(1, 4), weight: new Float32Array(2), shift: Float32Array.of(0, 1), w };
    const { logits, bests, shares, stripe } = await best(given);
    expect([...bests]).toEqual(logits.flatMap((row) => bestRow(row, shares, stripe!)));
  });

  test("NaN and infinities are told", async () => {
    const { NaN: nan, POSITIVE_INFINITY: infinity } = Number;
    for (const bad of [[nan], [infinity], [-infinity], [-infinity, nan], [infinity, nan]]) {
      const w = new Float32Array(140).fill(bad.includes(-infinity) ? -infinity : 1);
      bad.forEach((value, i) => {
        w[77 - i] = value;
      });
      const given = { x: Float32Array.of(3), weight: new Float32Array(1), shift: Float32Array.of(1), w };
      const { logits, bests, shares, stripe } = await best(given);
      expect(logits[0]![77]).toBe(bad[0]);
      const keys = bests.subarray(0, shares);
      expect([...keys]).toEqual(bestRow(logits[0]!, shares, stripe!).slice(0, shares));
      expect(Math.max(...keys)).toBe(bad[0] === -infinity && bad.length === 1 ? 0x007fffff : 0xffffffff);
    }
  });

  test("of a matrix in blocks: the best of them is the row's best", async () => {
    const { logits, bests, shares, stripe } = await best({
      ...uniform(5, 3, 400),
      blocks: [1, 130, 200, 69],
    });
    expect(stripe).toBeUndefined();
    logits.forEach((row, r) => {
      const keys = bests.subarray(2 * shares * r, 2 * shares * r + shares);
      const ids = bests.subarray(2 * shares * r + shares, 2 * shares * (r + 1));
      const [key, id] = bestRow(row, 1, 4);
      expect(Math.max(...keys)).toBe(key);
      expect(Math.min(...ids.filter((_, i) => keys[i] === key))).toBe(id);
    });
  });
});
