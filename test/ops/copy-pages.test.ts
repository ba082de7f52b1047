import { describe, expect, test } from "vitest";
import { copyPages, restorePages, savePages } from "../../src/ops/copy-pages.ts";
import { Tensor } from "../../src/tensor.ts";
import { bitsOf, expectLedgerUnchanged, openTestGpu, withGuardsAll } from "../gpu-fixture.ts";
import { randomFloats } from "../values.ts";

const gpu = await openTestGpu();

type Pairs = readonly (readonly [number, number])[];
interface Shape {
  readonly pages: number;
  readonly pageSize: number;
  readonly heads: number;
  readonly headSize: number;
  readonly dtype: "f32" | "f16";
}

const pairsTensor = (pairs: Pairs) => Tensor.from(gpu, [pairs.length, 2], pairs.flat(), { dtype: "u32" });
const cacheTensor = ({ pages, pageSize, heads, headSize, dtype }: Shape, seed: number) => {
  const shape = [pages * pageSize, heads, headSize];
  return Tensor.from(gpu, shape, randomFloats(seed, pages * pageSize * heads * headSize), { dtype });
};

/** Values of k and v after copies within them, and what they should be. */
async function copied(shape: Shape, pairs: Pairs) {
  const [k, v] = await withGuardsAll(gpu, () => {
    const [k, v] = [cacheTensor(shape, 1), cacheTensor(shape, 2)];
    copyPages(k, v, pairsTensor(pairs), shape.pageSize, Tensor.from(gpu, [64], new Array(64).fill(0)));
    return [k, v];
  });
  const wanted = await Promise.all(
    [1, 2].map(async (seed) => {
      const tensor = cacheTensor(shape, seed);
      const values = await tensor.read();
      tensor.free();
      const page = shape.pageSize * shape.heads * shape.headSize;
      for (const [from, to] of pairs) values.copyWithin(to * page, from * page, (from + 1) * page);
      return values;
    }),
  );
  return { given: [k!.values, v!.values], wanted };
}

test.each([
  { pages: 2, pageSize: 8, heads: 1, headSize: 4, dtype: "f32", pairs: [[0, 1]], why: "one thread a slot" },
  { pages: 5, pageSize: 8, heads: 3, headSize: 5, dtype: "f32", pairs: [[4, 0]], why: "heads with padding" },
  {
    pages: 4,
    pageSize: 16,
    heads: 1,
    headSize: 16,
    dtype: "f16",
    pairs: [[1, 3]],
    why: "exactly one workgroup",
  },
  { pages: 4, pageSize: 13, heads: 5, headSize: 4, dtype: "f16", pairs: [[3, 1]], why: "one thread past it" },
  {
    ...{ pages: 9, pageSize: 8, heads: 3, headSize: 16, dtype: "f32" },
    pairs: [
      [1, 2],
      [1, 5],
      [8, 0],
      [3, 7],
    ],
    why: "several, two of them of one page",
  },
] satisfies (Shape & { pairs: Pairs; why: string })[])(
  "pages of $pageSize slots, $dtype: $why",
  async ({ pairs, ...shape }) => {
    const { given, wanted } = await copied(shape, pairs);
    expect(given).toEqual(wanted);
  },
);

describe.each(["f32", "f16"] as const)("a block of %s", (dtype) => {
  const shape: Shape = { pages: 6, pageSize: 8, heads: 3, headSize: 5, dtype };
  const blockOf = (pages: number, layers: number) => [layers, 2, pages * 8, 3, 5];

  test("takes pages of every layer, and gives them back to other pages, bit for bit", async () => {
    const layers = [0, 1].map((l) => [cacheTensor(shape, 2 * l + 1), cacheTensor(shape, 2 * l + 2)] as const);
    // A NaN with a payload is a page's content like any other.
    for (const [k] of layers) gpu.write(k, new Uint32Array([0xffa5fc01, 0x7fc00003]), 0);
    const before = await Promise.all(layers.flat().map(bitsOf));
    const block = Tensor.from(gpu, blockOf(3, 2), new Array(2 * 2 * 24 * 15).fill(0), { dtype });
    const [out, back] = [
      pairsTensor([
        [5, 2],
        [0, 0],
        [2, 1],
      ]),
      pairsTensor([
        [2, 1],
        [0, 3],
        [1, 4],
      ]),
    ];
    layers.forEach(([k, v], layer) => {
      savePages(k, v, out, 8, { block, layer });
    });
    layers.forEach(([k, v], layer) => {
      restorePages(k, v, back, 8, { block, layer });
    });
    const after = await Promise.all(layers.flat().map(bitsOf));
    const words = before[0]!.length / 6;
    const pageOf = (bits: Uint32Array, page: number) => bits.subarray(page * words, (page + 1) * words);
    const sources = [0, 5, 2, 0, 2, 5];
    after.forEach((bits, i) => {
      sources.forEach((source, page) => {
        expect(pageOf(bits, page), `tensor ${i}, page ${page}`).toEqual(pageOf(before[i]!, source));
      });
    });
    for (const t of [...layers.flat(), block, out, back]) t.free();
  });

  test("of another shape is refused", () => {
    const [k, v] = [cacheTensor(shape, 1), cacheTensor(shape, 2)];
    const pairs = pairsTensor([[0, 0]]);
    const block = Tensor.empty(gpu, blockOf(1, 1), { dtype });
    expect(() => savePages(k, v, pairs, 8, { block, layer: 1 })).toThrow(
      "copy-pages: the block is [1, 2, 8, 3, 5] but the cache is [48, 3, 5] in pages of 8 slots",
    );
    expect(() => copyPages(k, v, k, 8, block)).toThrow("copy-pages: pairs are [48, 3, 5]; wanted [n, 2]");
    for (const t of [k, v, pairs, block]) t.free();
  });
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const shape: Shape = { pages: 2, pageSize: 8, heads: 1, headSize: 4, dtype: "f32" };
    const given = [cacheTensor(shape, 1), cacheTensor(shape, 2), pairsTensor([[0, 1]])] as const;
    const spare = Tensor.empty(gpu, [4]);
    copyPages(...given, 8, spare);
    for (const t of [...given, spare]) t.free();
  });
});
