import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Gpu } from "../../src/gpu/gpu.ts";
import { loadKernel } from "../../src/gpu/wgsl.ts";
import { attentionTiles, tileSizes } from "../../src/ops/attention-tiles.ts";
import { hasMatrixAttention, MATRIX_TILE_ROWS, matrixFlashAttention } from "../../src/ops/flash-attention.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";
import { expectClose, TOLERANCE } from "../numerics.ts";
import {
  type Batch,
  expectedAttention,
  type Lengths,
  MIXED,
  makeBatch,
  type Paging,
  runFlash,
} from "../ops/attention-batch.ts";
import { stored, VALUES_NAMES } from "../values.ts";

// flash-attention-subgroup-matrix: everything in halves, heads of 64.

const gpu = await openTestGpu();
const shape = { heads: 2, headSize: 64 };
const here = hasMatrixAttention(gpu, { headSize: 64, dtype: "f16" });
const missing = here ? "" : " (skipped: this adapter has no subgroup matrices of 16 × 16 × 16 halves)";
const C = shape.heads * shape.headSize;
/** Results are rounded to halves, of which neighbours below 1 are 2^-11 apart. */
const CLOSE = { nmse: TOLERANCE.attention.f16.nmse, maxAbs: 1e-3 };
const TILE = { rows: MATRIX_TILE_ROWS, keys: 64, lanes: 0 };

test.each(
  ["slots-contiguous", "slots-paged"].flatMap((slots) =>
    ["flash-tile-64", "flash-tile-16"].map((tile) => [slots, tile] as const),
  ),
)("with %s and %s it is WGSL that Dawn accepts, on any machine", async (...parts) => {
  const everything = await Gpu.open({ backend: "null" });
  try {
    const { code } = loadKernel("flash-attention-subgroup-matrix", parts);
    const { messages } = await everything.device.createShaderModule({ code }).getCompilationInfo();
    expect(messages.filter(({ type }) => type === "error").map((m) => m.message)).toEqual([]);
  } finally {
    await everything.close();
  }
});

test("which sizes of tiles there are is what the list of tiles says", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(200), { minLength: 1, maxLength: 8 }), (fresh) => {
      const starts = [0];
      for (const count of fresh) starts.push(starts.at(-1)! + count);
      const tiles = attentionTiles(starts, TILE.rows);
      const rows = Array.from({ length: tiles.length / 2 }, (_, i) =>
        Math.min(TILE.rows, starts[tiles[2 * i]! + 1]! - tiles[2 * i + 1]!),
      );
      expect(tileSizes(fresh, TILE.rows)).toEqual({
        few: rows.some((count) => count <= 16),
        many: rows.some((count) => count > 16),
      });
    }),
  );
});

/** Queries as tensor cores get them: alone, and in halves. */
function halfQueries(batch: Batch): Batch {
  const T = batch.qkv.length / (3 * C);
  const queries = Float32Array.from(
    { length: T * C },
    (_, i) => batch.qkv[Math.floor(i / C) * 3 * C + (i % C)]!,
  );
  const rounded = stored(queries, "f16");
  const qkv = batch.qkv.slice();
  for (let t = 0; t < T; t++) qkv.set(rounded.subarray(t * C, (t + 1) * C), t * 3 * C);
  return { ...batch, qkv };
}

const batchOf = (lengths: Lengths, name?: Parameters<typeof makeBatch>[2]) =>
  halfQueries(makeBatch({ ...shape, lengths }, "f16", name));

const run = (batch: Batch, how: "contiguous" | Paging = "contiguous", more = 0) =>
  runFlash(gpu, batch, how, TILE, {
    more,
    run: (_tile, queries, ...rest) => {
      const T = queries.rows;
      const alone = Float32Array.from(
        { length: T * C },
        (_, i) => batch.qkv[Math.floor(i / C) * 3 * C + (i % C)]!,
      );
      return matrixFlashAttention(Tensor.from(gpu, [T, C], alone, { dtype: "f16" }), ...rest);
    },
  });

describe.skipIf(!here)(`by subgroup matrices${missing}`, () => {
  test.each<{ lengths: Lengths; why: string }>([
    { lengths: [[0, 1]], why: "one token that sees only itself" },
    { lengths: MIXED, why: "prefill, chunked prefill and decode together" },
    { lengths: [[0, 15]], why: "few rows" },
    { lengths: [[0, 16]], why: "as many rows as are few" },
    { lengths: [[0, 17]], why: "one more" },
    { lengths: [[0, 63]], why: "one row and one position less than a tile" },
    { lengths: [[0, 64]], why: "exactly a tile" },
    { lengths: [[0, 65]], why: "one past it" },
    { lengths: [[64, 64]], why: "a past of exactly a tile" },
    { lengths: [[63, 130]], why: "a past that is not one" },
    { lengths: [[1023, 1], [0, 1024]], why: "GPT-2's context" }, // biome-ignore format: one line
    { lengths: [[9, 0], [3, 2]], why: "a sequence that has no new token" }, // biome-ignore format: one line
    { lengths: Array.from({ length: 33 }, (_, i) => [7 * i, 1] as const), why: "decode of 33 sequences" },
  ])("$why", async ({ lengths }) => {
    const batch = batchOf(lengths);
    expectClose((await run(batch)).values, expectedAttention(batch), CLOSE);
  });

  test.each(VALUES_NAMES)("values: %s", async (name) => {
    const batch = batchOf([[0, 70], [90, 3]], name); // biome-ignore format: one line
    const expected = expectedAttention(batch);
    const largest = expected.reduce((most, v) => Math.max(most, Math.abs(v)), 1);
    expectClose((await run(batch)).values, expected, {
      nmse: CLOSE.nmse,
      maxAbs: CLOSE.maxAbs * largest,
    });
  });

  test("scores that rise from tile to tile: sums shrink, and nothing overflows", async () => {
    const batch = batchOf([[0, 200]]);
    const keys = Float32Array.from(batch.contexts[0]!.keys, (k, i) => (k * (1 + Math.floor(i / C))) / 16);
    const rising: Batch = {
      ...batch,
      contexts: [{ ...batch.contexts[0]!, keys: stored(keys, "f16") }],
    };
    expectClose((await run(rising)).values, expectedAttention(rising), CLOSE);
  });

  test("pages anywhere give the bits of strips, whatever their size, and so do entries of no tile", async () => {
    const batch = batchOf([[0, 19], [130, 5], [60, 70]]); // biome-ignore format: one line
    const { bits } = await run(batch);
    for (const pageSize of [8, 16, 24, 64, 256])
      for (const seed of [1, 2]) expect((await run(batch, { pageSize, seed })).bits).toEqual(bits);
    expect((await run(batch, "contiguous", 3)).bits).toEqual(bits);
  });

  test("a prompt in pieces, row by row too, gives the bits of the whole prompt", async () => {
    const whole = batchOf([[0, 150]]);
    const { bits } = await run(whole);
    const stride = bits.length / 150;
    for (const [past, fresh] of [
      [0, 50],
      [50, 77],
      [127, 1],
      [128, 22],
      [64, 16],
      [64, 17],
      [149, 1],
      [3, 1],
    ] as const) {
      // biome-ignore format: one line
      const { keys, values } = whole.contexts[0]!;
      const seen = (all: ArrayLike<number>) => Float32Array.from(all).subarray(0, (past + fresh) * C);
      const piece: Batch = {
        ...whole,
        lengths: [[past, fresh]],
        qkv: whole.qkv.slice(past * 3 * C, (past + fresh) * 3 * C),
        contexts: [{ length: past + fresh, fresh, keys: seen(keys), values: seen(values) }],
      };
      expect((await run(piece)).bits).toEqual(bits.slice(past * stride, (past + fresh) * stride));
    }
  });

  test("the same call 20 times gives the same bits, and the ledger is as before", async () => {
    const batch = batchOf(MIXED);
    await expectLedgerUnchanged(gpu, async () => {
      const { bits } = await run(batch);
      for (let i = 0; i < 20; i++) expect((await run(batch)).bits).toEqual(bits);
    });
  });

  test("heads of another size are refused", () => {
    const k = Tensor.empty(gpu, [4, 2, 32], { dtype: "f16" });
    const q = Tensor.empty(gpu, [1, 64], { dtype: "f16" });
    const u = (n: number) => Tensor.from(gpu, [n], new Array<number>(n).fill(0), { dtype: "u32" });
    const [contextLens, queryStarts, sequenceOf, table] = [u(1), u(2), u(1), u(1)];
    const batch = { contextLens, queryStarts, sequenceOf, tileRows: MATRIX_TILE_ROWS };
    const lookup = { part: "slots-contiguous", table, pageSize: 1 } as const;
    expect(() => matrixFlashAttention(q, k, k, lookup, batch, 1)).toThrow(
      "flash-attention: queries are [1, 64], the cache [4, 2, 32], tiles have 64 rows; wanted H · D queries, heads of 64 and tiles of 64",
    );
    for (const tensor of [k, q, contextLens, queryStarts, sequenceOf, table]) tensor.free();
  });
});
