import { describe, expect, test } from "vitest";
import { mergeAttention } from "../../src/ops/merge-attention.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, openTestGpu, withGuards } from "../gpu-fixture.ts";
import { expectClose, scaledTo, TOLERANCE } from "../numerics.ts";
import * as reference from "../reference.ts";
import { makePartials, type PartialShape as Shape } from "./partial-results.ts";

const gpu = await openTestGpu();

function run(shape: Shape, partials: Float32Array) {
  const { heads, headSize, contexts, chunks } = shape;
  return withGuards(gpu, () =>
    mergeAttention(
      Tensor.from(gpu, [contexts.length, heads, chunks, headSize + 4], partials),
      Tensor.from(gpu, [contexts.length], contexts, { dtype: "u32" }),
    ),
  );
}

const expectedOf = ({ contexts, heads, headSize }: Shape, partials: Float32Array) =>
  reference.mergeAttention(partials, contexts, heads, headSize);

const SHAPES: readonly (Shape & { why: string })[] = [
  { heads: 1, headSize: 4, contexts: [1], chunks: 1, why: "one quad of one chunk" },
  { heads: 3, headSize: 8, contexts: [128, 129, 1, 256], chunks: 2, why: "both sides of a chunk" },
  {
    heads: 12,
    headSize: 64,
    contexts: [1024, 300],
    chunks: 8,
    why: "GPT-2's whole context: one block of loads",
  },
  {
    heads: 2,
    headSize: 4,
    contexts: [1025, 1920, 1921],
    chunks: 16,
    why: "past one block, two blocks, and past two",
  },
  { heads: 25, headSize: 64, contexts: [200], chunks: 8, why: "GPT-2 XL's heads; room for more" },
  { heads: 16, headSize: 16, contexts: [200], chunks: 2, why: "exactly one workgroup" },
  { heads: 13, headSize: 20, contexts: [200], chunks: 2, why: "one past it" },
  { heads: 1, headSize: 128, contexts: [130, 5], chunks: 4, why: "the largest head" },
];

test.each(SHAPES)("$heads heads of $headSize, contexts $contexts: $why", async (shape) => {
  const partials = makePartials(shape);
  expectClose((await run(shape, partials)).values, expectedOf(shape, partials), TOLERANCE.attention.f32);
});

const shape: Shape = { heads: 2, headSize: 8, contexts: [1024, 700], chunks: 8 };

test("maxima far apart: the larger wins, and nothing overflows", async () => {
  const partials = makePartials(shape, 1e4);
  const expected = expectedOf(shape, partials);
  expectClose((await run(shape, partials)).values, expected, scaledTo(expected, TOLERANCE.attention.f32));
});

test("maxima that all move by the same power of two leave every bit as it was", async () => {
  // Maxima in steps of 1/16, so that they can move without rounding.
  const moved = (by: number) =>
    makePartials(shape).map((x, i) => (i % 12 === 8 ? Math.round(x * 16) / 16 + by : x));
  expect((await run(shape, moved(64))).bits).toEqual((await run(shape, moved(0))).bits);
});

test("one chunk is its values over its sum, to the bit", async () => {
  const one: Shape = { heads: 2, headSize: 4, contexts: [100], chunks: 3 };
  const partials = makePartials(one);
  // Sums that are powers of two, so that any way to divide is exact.
  partials[5] = 4;
  partials[3 * 8 + 5] = 2;
  const expected = [0, 1, 2, 3]
    .map((i) => partials[i]! / 4)
    .concat([24, 25, 26, 27].map((i) => partials[i]! / 2));
  expect([...(await run(one, partials)).values]).toEqual(expected);
});

test("the same call 20 times gives the same bits", async () => {
  const partials = Tensor.from(gpu, [2, 2, 8, 12], makePartials(shape));
  const lens = Tensor.from(gpu, [2], shape.contexts, { dtype: "u32" });
  await expectSameBits(() => mergeAttention(partials, lens));
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const partials = Tensor.from(gpu, [2, 2, 8, 12], makePartials(shape));
    const lens = Tensor.from(gpu, [2], shape.contexts, { dtype: "u32" });
    mergeAttention(partials, lens).free();
    partials.free();
    lens.free();
  });
});

describe("wrong calls", () => {
  const lens = Tensor.from(gpu, [1], [5], { dtype: "u32" });

  test.each([[[2, 12]], [[1, 2, 8, 10]], [[1, 2, 8, 4]]])("partial results %j", (dims) => {
    expect(() => mergeAttention(Tensor.empty(gpu, dims), lens)).toThrow(
      `merge-attention: partials are [${dims.join(", ")}]; wanted [S, H, chunks, D + 4]`,
    );
  });

  test("as many contexts as sequences", () => {
    expect(() => mergeAttention(Tensor.empty(gpu, [2, 2, 8, 12]), lens)).toThrow(
      "merge-attention: partials are [2, 2, 8, 12] but there are 1 contexts",
    );
  });
});
