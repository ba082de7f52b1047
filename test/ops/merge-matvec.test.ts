import { describe, expect, test } from "vitest";
import type { Gpu } from "../../src/gpu/gpu.ts";
import { matvec } from "../../src/ops/matvec.ts";
import { mergeAttention } from "../../src/ops/merge-attention.ts";
import { mergeMatvec } from "../../src/ops/merge-matvec.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, withGuards } from "../gpu-fixture.ts";
import { expectClose, matmulTolerance, scaledTo } from "../numerics.ts";
import * as reference from "../reference.ts";
import { randomFloats } from "../values.ts";
import { openForms } from "./fused-forms.ts";
import { matrixOf, storedMatrix, WEIGHT_DTYPES } from "./matrix-of.ts";
import { makePartials, type PartialShape } from "./partial-results.ts";
import type { TableDtype } from "./table-of.ts";

const FORMS = await openForms();

interface Shape extends PartialShape {
  readonly N: number;
  readonly dtypes?: readonly TableDtype[];
}

// A share is 24 rows of w, a group 8 shares; a chunk is 128 positions, and 8 chunks are loaded at once.
const SHAPES: readonly (Shape & { readonly why: string })[] = [
  { heads: 1, headSize: 4, contexts: [1], chunks: 1, N: 3, why: "one quad of one chunk" },
  { heads: 6, headSize: 4, contexts: [128, 129], chunks: 2, N: 24, why: "one share; both sides of a chunk" },
  { heads: 7, headSize: 4, contexts: [1, 2, 130, 4, 5], chunks: 2, N: 257, why: "one quad past a share" },
  // SwiftShader takes up to a second to compile for rows as wide as these, so one storage must do.
  { heads: 6, headSize: 64, contexts: [300, 1], chunks: 3, N: 12, dtypes: ["f32"], why: "exactly a group" },
  {
    heads: 97,
    headSize: 4,
    contexts: [200],
    chunks: 4,
    N: 9,
    dtypes: ["f16"],
    why: "a quad past a group; room for more",
  },
  {
    heads: 2,
    headSize: 4,
    contexts: [1025, 1921],
    chunks: 16,
    N: 2053,
    dtypes: ["f32"],
    why: "past one and two blocks of chunks",
  },
  { heads: 12, headSize: 64, contexts: [1024, 5], chunks: 8, N: 768, dtypes: ["f16"], why: "GPT-2's" },
  { heads: 25, headSize: 64, contexts: [130], chunks: 2, N: 12, dtypes: ["i8"], why: "GPT-2 XL's width" },
];

interface Case {
  readonly shape: Shape;
  readonly partials: Float32Array;
  readonly w: Float32Array;
  readonly bias: Float32Array;
  readonly residual: Float32Array;
}
function uniform(shape: Shape, spread?: number): Case {
  const { heads, headSize, contexts, N } = shape;
  return {
    shape,
    partials: makePartials(shape, spread),
    w: randomFloats(1, heads * headSize * N),
    bias: randomFloats(2, N),
    residual: randomFloats(3, contexts.length * N),
  };
}

/** The fused kernel, or the two that it stands for, between guard words. */
const run = (on: Gpu, dtype: TableDtype, how: "fused" | "chain", given: Case) =>
  withGuards(on, () => {
    const { heads, headSize, contexts, chunks, N } = given.shape;
    const S = contexts.length;
    const partials = Tensor.from(on, [S, heads, chunks, headSize + 4], given.partials);
    const lens = Tensor.from(on, [S], contexts, { dtype: "u32" });
    const { w, bias } = matrixOf(on, given.w, given.bias, dtype);
    const residual = Tensor.from(on, [S, N], given.residual);
    if (how === "fused") return mergeMatvec(partials, lens, w, bias, residual);
    return matvec(mergeAttention(partials, lens), w, bias, { residual });
  });

describe.each(FORMS)("the form for $form", ({ on }) => {
  test.each(SHAPES)(
    "$heads heads of $headSize, contexts $contexts, $N columns: mergeAttention and matvec, bit for bit: $why",
    async (shape) => {
      const given = uniform(shape);
      const { contexts, heads, headSize, N } = shape;
      const merged = reference.mergeAttention(given.partials, contexts, heads, headSize);
      for (const dtype of shape.dtypes ?? WEIGHT_DTYPES) {
        const fused = await run(on, dtype, "fused", given);
        expect(fused.bits).toEqual((await run(on, dtype, "chain", given)).bits);
        const { values } = reference.matmul(merged, storedMatrix(given.w, N, dtype), given.bias, given);
        expectClose(fused.values, values, scaledTo(values, matmulTolerance(768, dtype)));
      }
    },
  );

  const shape: Shape = { heads: 2, headSize: 8, contexts: [1024, 700, 3], chunks: 8, N: 12 };

  test("maxima far apart: the larger wins, nothing overflows, and the bits are those of the two", async () => {
    const given = uniform(shape, 1e4);
    const fused = await run(on, "f32", "fused", given);
    expect(fused.bits).toEqual((await run(on, "f32", "chain", given)).bits);
    expect(fused.values.every(Number.isFinite)).toBe(true);
  });

  test("a sequence alone and the sequence in a batch are the same bits", async () => {
    const given = uniform(shape);
    const batch = await run(on, "f16", "fused", given);
    const perSequence = given.partials.length / 3;
    const alone = await run(on, "f16", "fused", {
      ...given,
      shape: { ...shape, contexts: [700] },
      partials: given.partials.slice(perSequence, 2 * perSequence),
      residual: given.residual.slice(12, 24),
    });
    expect(alone.bits).toEqual(batch.bits.slice(12, 24));
  });

  test("the same call 20 times gives the same bits", async () => {
    const given = uniform(shape);
    const partials = Tensor.from(on, [3, 2, 8, 12], given.partials);
    const lens = Tensor.from(on, [3], shape.contexts, { dtype: "u32" });
    const [w, bias] = [Tensor.from(on, [16, 12], given.w), Tensor.from(on, [1, 12], given.bias)];
    const residual = Tensor.from(on, [3, 12], given.residual);
    await expectSameBits(() => mergeMatvec(partials, lens, w, bias, residual));
  });
});

test("the ledger is back where it started", async () => {
  const { on } = FORMS[0]!;
  await expectLedgerUnchanged(on, () => {
    const partials = Tensor.from(on, [1, 1, 1, 8], [1, 2, 3, 4, 0, 1, 0, 0]);
    const lens = Tensor.from(on, [1], [5], { dtype: "u32" });
    const w = Tensor.from(on, [4, 4], randomFloats(4, 16));
    const bias = Tensor.from(on, [1, 4], randomFloats(5, 4));
    mergeMatvec(partials, lens, w, bias, bias).free();
    for (const tensor of [partials, lens, w, bias]) tensor.free();
  });
});

describe("wrong calls", () => {
  const { on } = FORMS[0]!;
  const empty = (...shape: number[]) => Tensor.empty(on, shape);
  const lengths = (count: number) => Tensor.empty(on, [count], { dtype: "u32" });
  const given = {
    ...{ partials: empty(2, 3, 1, 8), lens: lengths(2) },
    ...{ w: empty(12, 5), bias: empty(1, 5), residual: empty(2, 5) },
  };
  const call = (changed: Partial<typeof given>) => () => {
    const { partials, lens, w, bias, residual } = { ...given, ...changed };
    return mergeMatvec(partials, lens, w, bias, residual);
  };

  test("w has a row for each channel, and there is a context for each sequence", () => {
    expect(call({ w: empty(11, 5) })).toThrow(
      "merge-matvec: partials are [2, 3, 1, 8] but w is [11, 5] and there are 2 contexts; wanted w [H · D, N] and a context for each sequence",
    );
    expect(call({ lens: lengths(3) })).toThrow("there are 3 contexts");
  });

  test("partial results have sequences, heads, chunks and quads", () => {
    expect(call({ partials: empty(6, 8) })).toThrow("merge-matvec: partials are [6, 8]");
  });

  test("bias is as wide as w, and the residual has the product's shape", () => {
    expect(call({ bias: empty(1, 6) })).toThrow(
      "merge-matvec: w is f32 [12, 5] but bias is [1, 6]; wanted [1, 5]",
    );
    expect(call({ residual: empty(1, 5) })).toThrow(
      "merge-matvec: the product is [2, 5] but residual is [1, 5]; the shapes must be equal",
    );
  });
});
