import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Gpu } from "../../src/gpu/gpu.ts";
import { loadKernel } from "../../src/gpu/wgsl.ts";
import { PADDING } from "../../src/ops/attention.ts";
import { attentionTiles, maxAttentionTiles } from "../../src/ops/attention-tiles.ts";
import type { SlotLookup } from "../../src/ops/decode-attention.ts";
import {
  FLASH_TILES,
  type FlashTile,
  flashAttention,
  flashAttentionWith,
  flashBytes,
  flashTile,
} from "../../src/ops/flash-attention.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, openTestGpu } from "../gpu-fixture.ts";
import { expectClose, scaledTo, TOLERANCE } from "../numerics.ts";
import { randomFloats, VALUES_NAMES } from "../values.ts";
import {
  type Batch,
  expectedAttention,
  type Lengths,
  MIXED,
  makeBatch,
  runContiguous,
  runFlash,
  runPaged,
} from "./attention-batch.ts";
import { openForms } from "./fused-forms.ts";

const gpu = await openTestGpu();
const [software, wide] = (await openForms()).map(({ on }) => on) as [Gpu, Gpu];

const fits = (tile: FlashTile, headSize: number) =>
  flashBytes(tile, Math.ceil(headSize / 4)) <= gpu.limits.maxComputeWorkgroupStorageSize;
/** The first and the last tile that heads of this size leave room for: most and fewest rows and positions. */
const tilesFor = (headSize: number): FlashTile[] => {
  const all = FLASH_TILES.filter((tile) => fits(tile, headSize));
  return [...new Set([all[0]!, all.at(-1)!])];
};
const [LARGE, SMALL] = tilesFor(8) as [FlashTile, FlashTile];

const BATCHES: readonly { lengths: Lengths; why: string }[] = [
  { lengths: [[0, 1]], why: "one token that sees only itself" },
  ...[15, 16, 17, 31, 32, 33].map((T) => ({
    lengths: [[0, T]] as Lengths,
    why: `a prompt of ${T}, at the end of a tile`,
  })),
  ...[127, 128, 129].map((T) => ({
    lengths: [[0, T]] as Lengths,
    why: `a prompt of ${T}, at the end of a chunk`,
  })),
  { lengths: [[1, 17]], why: "a past of one token: tiles of rows begin at no multiple of their size" },
  { lengths: [[120, 17]], why: "rows of one tile at both sides of a chunk's end" },
  {
    lengths: [
      [127, 3],
      [128, 3],
      [200, 33],
    ],
    why: "a past of one chunk, and of more",
  },
  { lengths: MIXED, why: "prefill, chunked prefill and decode together" },
  {
    lengths: [
      [9, 0],
      [3, 2],
      [0, 0],
      [255, 2],
    ],
    why: "sequences that have no new token",
  },
];

describe.each(["f32", "f16"] as const)("keys and values in %s", (dtype) => {
  const tolerance = TOLERANCE.attention[dtype];
  const bitsByRow = async (batch: Batch) => (await runContiguous(software, batch)).bits;

  test.each(BATCHES)("$why", async ({ lengths }) => {
    const batch = makeBatch({ heads: 2, headSize: 8, lengths }, dtype);
    const byRow = await bitsByRow(batch);
    for (const tile of dtype === "f32" ? FLASH_TILES : [SMALL]) {
      const y = await runFlash(gpu, batch, "contiguous", tile);
      expectClose(y.values, expectedAttention(batch), tolerance);
      expect(y.bits).toEqual(byRow);
    }
  });

  // Halves differ in what a load brings, not in what is done with it.
  // Two heads here and elsewhere, since each number of heads is one more kernel to compile.
  test.each(dtype === "f32" ? [1, 3, 8, 64, 65] : [3, 128])("heads of %i", async (headSize) => {
    const lengths: Lengths = [
      [0, 17],
      [119, 12],
    ];
    const batch = makeBatch({ heads: 2, headSize, lengths }, dtype);
    const byRow = await bitsByRow(batch);
    for (const tile of tilesFor(headSize).slice(dtype === "f32" && headSize < 64 ? 0 : -1)) {
      const y = await runFlash(gpu, batch, "contiguous", tile);
      expectClose(y.values, expectedAttention(batch), tolerance);
      expect(y.bits).toEqual(byRow);
    }
  });

  test("pages anywhere give the bits of attention row by row, in strips and in pages, whatever their size", async () => {
    const lengths: Lengths = [
      [0, 19],
      [130, 5],
      [250, 9],
    ];
    const batch = makeBatch({ heads: 2, headSize: 8, lengths }, dtype);
    const bits = await bitsByRow(batch);
    expect((await runPaged(gpu, batch, { pageSize: 24 })).bits).toEqual(bits);
    for (const pageSize of dtype === "f32" ? [8, 24] : [16])
      for (const seed of [1, 2])
        expect((await runFlash(gpu, batch, { pageSize, seed }, LARGE)).bits).toEqual(bits);
  });

  test("a prompt in pieces gives the bits of the whole prompt", async () => {
    const C = 16;
    const whole = makeBatch({ heads: 2, headSize: 8, lengths: [[0, 150]] }, dtype);
    const tile = dtype === "f32" ? LARGE : SMALL;
    const { bits } = await runFlash(gpu, whole, "contiguous", tile);
    const stride = bits.length / 150;
    for (const [past, fresh] of [
      [0, 50],
      [50, 77],
      [127, 1],
      [128, 22],
    ] as const) {
      const { keys, values } = whole.contexts[0]!;
      const seen = (all: ArrayLike<number>) => Float32Array.from(all).subarray(0, (past + fresh) * C);
      const piece: Batch = {
        ...whole,
        lengths: [[past, fresh]],
        qkv: whole.qkv.slice(past * 3 * C, (past + fresh) * 3 * C),
        contexts: [{ length: past + fresh, fresh, keys: seen(keys), values: seen(values) }],
      };
      const y = await runFlash(gpu, piece, "contiguous", tile);
      expect(y.bits).toEqual(bits.slice(past * stride, (past + fresh) * stride));
    }
  });

  test.each(VALUES_NAMES)("values: %s", async (name) => {
    const batch = makeBatch({ heads: 2, headSize: 8, lengths: [...MIXED, [140, 3]] }, dtype, name);
    const expected = expectedAttention(batch);
    const y = await runFlash(gpu, batch, "contiguous", SMALL);
    expectClose(y.values, expected, scaledTo(expected, tolerance));
    expect(y.bits).toEqual(await bitsByRow(batch));
  });

  test.each([
    { past: 100, blind: 133, why: "in the middle of a tile" },
    {
      past: 110,
      blind: 111,
      why: "the last position of a group, which the first row of a tile does not see",
    },
    { past: 111, blind: 112, why: "the first one of the next group" },
    { past: 126, blind: 128, why: "the next chunk" },
  ])("NaN after a token changes nothing: $why", async ({ past, blind }) => {
    const C = 16;
    const batch = makeBatch({ heads: 2, headSize: 8, lengths: [[past, 40]] }, dtype);
    const cut = (values: ArrayLike<number>) =>
      Float32Array.from(values, (x, i) => (i < blind * C ? x : Number.NaN));
    const [whole] = batch.contexts;
    const contexts = [{ ...whole!, keys: cut(whole!.keys), values: cut(whole!.values) }];
    const end = (blind - past) * C;
    for (const tile of dtype === "f32" ? [LARGE, SMALL] : [SMALL]) {
      const expected = (await runFlash(gpu, batch, "contiguous", tile)).bits;
      const actual = await runFlash(gpu, { ...batch, contexts }, "contiguous", tile);
      expect(actual.bits.slice(0, end)).toEqual(expected.slice(0, end));
      expect(actual.values.slice(end).every(Number.isNaN)).toBe(true);
    }
  });
});

test("a key that is not finite spoils its head and no other, as in attention row by row", async () => {
  const batch = makeBatch({ heads: 2, headSize: 8, lengths: [[120, 20]] }, "f32");
  const { values } = await runFlash(gpu, batch, "contiguous", LARGE);
  const heads = (all: Float32Array, head: number) => all.filter((_, i) => Math.floor(i / 8) % 2 === head);
  for (const bad of [[NaN], [Infinity, -Infinity, Infinity, -Infinity]]) {
    const keys = Float32Array.from(batch.contexts[0]!.keys);
    keys.set(bad, 3 * 16 + 8); // position 3, second head
    const spoiled: Batch = { ...batch, contexts: [{ ...batch.contexts[0]!, keys }] };
    const y = (await runFlash(gpu, spoiled, "contiguous", LARGE)).values;
    expect(y).toEqual((await runContiguous(software, spoiled)).values);
    expect(heads(y, 0)).toEqual(heads(values, 0));
    if (Number.isNaN(bad[0])) expect(heads(y, 1).every(Number.isNaN)).toBe(true);
  }
});

test("a sum that is -0 stays so: groups and chunks that a row does not see add nothing", async () => {
  // Weights of 2e-35 times -2e-38 are -0 where fma rounds once; the last row sees a second group, the others do not.
  const length = 18;
  const keys = new Float32Array(length * 8);
  const values = new Float32Array(length * 8).fill(-0);
  keys[0] = -80;
  values.fill(-2e-38, 0, 4);
  const qkv = new Float32Array(length * 24);
  for (let row = 0; row < length; row++) qkv[row * 24] = 2;
  const contexts = [{ length, fresh: length, keys, values }];
  const batch: Batch = { heads: 2, headSize: 4, dtype: "f32", lengths: [[0, length]], qkv, contexts };
  expect((await runFlash(gpu, batch, "contiguous", SMALL)).bits).toEqual(
    (await runContiguous(software, batch)).bits,
  );
});

test("sums that overflow stay so in rows that do not see the next chunk", async () => {
  const batch = makeBatch({ heads: 2, headSize: 8, lengths: [[120, 12]] }, "f32");
  const contexts = batch.contexts.map((c) => ({ ...c, values: new Float32Array(c.length * 16).fill(3e38) }));
  const y = await runFlash(gpu, { ...batch, contexts }, "contiguous", LARGE);
  expect(y.values.slice(0, 8 * 16).every((value) => value === Infinity)).toBe(true);
  expect(y.values).toEqual((await runContiguous(software, { ...batch, contexts })).values);
});

test("an entry that names no tile does nothing, and a row that is in no tile is left alone", async () => {
  const batch = makeBatch({ heads: 2, headSize: 8, lengths: MIXED }, "f32");
  const y = await runFlash(gpu, batch, "contiguous", SMALL);
  expect((await runFlash(gpu, batch, "contiguous", SMALL, { more: 3 })).bits).toEqual(y.bits);
  const without = await runFlash(gpu, batch, "contiguous", SMALL, {
    run: (tile, queries, k, v, lookup, tensors, scale) => {
      const tiles = Tensor.from(gpu, [2, 2], [PADDING, PADDING, 1, 5], { dtype: "u32" });
      return flashAttentionWith(tile, queries, k, v, lookup, { ...tensors, tiles }, scale);
    },
  });
  const own = (bits: Uint32Array) => bits.slice(5 * 16, 8 * 16); // the rows of the second sequence
  expect(own(without.bits)).toEqual(own(y.bits));
  const others = [...without.bits.slice(0, 5 * 16), ...without.bits.slice(8 * 16)];
  expect(others.every((word) => word === without.guard)).toBe(true);
});

describe("which form runs", () => {
  const run = (on: Gpu, batch: Batch, tiles: boolean) =>
    runFlash(on, batch, { pageSize: 8 }, FLASH_TILES[0]!, {
      run: (_, queries, k, v, lookup, tensors, scale) => {
        const { tiles: list, tileRows, ...rest } = tensors;
        return flashAttention(
          queries,
          k,
          v,
          lookup,
          tiles ? { ...rest, tiles: list!, tileRows: tileRows! } : rest,
          scale,
        );
      },
    });

  test("with tiles, without tiles and on a CPU: the same bits", async () => {
    const batch = makeBatch({ heads: 2, headSize: 8, lengths: MIXED }, "f32");
    const { bits } = await run(wide, batch, true);
    expect((await run(wide, batch, false)).bits).toEqual(bits);
    expect((await run(software, batch, true)).bits).toEqual(bits);
  });

  test("the tile suits the workgroup memory of the device, which a CPU that plays GPU is not asked for", async () => {
    const least = await Gpu.open({ backend: "null", limits: "default", forms: "gpu" });
    const tile = (on: Gpu, headSize: number) => {
      const k = Tensor.empty(on, [4, 1, headSize]);
      const found = flashTile(k);
      k.free();
      return found;
    };
    expect(least.limits.maxComputeWorkgroupStorageSize).toBe(16_384);
    expect(tile(least, 64)).toEqual({ rows: 8, keys: 16, lanes: 16 });
    expect(tile(least, 128)).toBeUndefined();
    expect(tile(wide, 16)).toEqual(FLASH_TILES[0]);
    expect(tile(software, 16)).toBeUndefined();
    await least.close();
  });

  test("workgroup memory is reckoned from what the shaders declare", () => {
    const { code } = loadKernel("flash-attention");
    const declared = [...code.matchAll(/var<workgroup> (\w+): array<([^,]+), (\w+)>/g)].map(
      ([, , type, count]) => [type, count],
    );
    expect(declared).toEqual([
      ["u32", "ROWS_HELD"],
      ["vec4f", "STAGE_QUADS"],
      ["vec4f", "QUERY_QUADS"],
      ["vec4f", "WEIGHT_QUADS"],
      ["atomic<u32>", "TILE_ROWS"],
    ]);
    // 256 · 4, 32 · 17 · 16, 16 · 17 · 16, 4 · 140 · 16 and 16 · 4 bytes.
    expect(flashBytes({ rows: 16, keys: 32 }, 16)).toBe(1024 + 8704 + 4352 + 8960 + 64);
  });
});

describe("the list of tiles", () => {
  test("tiles end with their sequence; the last rows come first; padding behind", () => {
    expect([...attentionTiles([0, 5, 5, 14], 4)]).toEqual([0, 4, 0, 0, 2, 13, 2, 9, 2, 5]);
    expect([...attentionTiles([0, 1], 4, 2)]).toEqual([0, 0, PADDING, PADDING]);
    expect(() => attentionTiles([0, 5, 14], 4, 4)).toThrow(
      "attention tiles: 5 tiles of up to 4 rows; there is room for 4",
    );
  });

  test("every row is in one tile of its sequence, and there are no more tiles than the bound says", () => {
    const batches = fc.array(fc.integer({ min: 0, max: 70 }), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(batches, fc.constantFrom(1, 8, 16, 32), fc.nat(3), (fresh, tileRows, idle) => {
        const starts = [0];
        for (const n of fresh) starts.push(starts.at(-1)! + n);
        const rows = starts.at(-1)!;
        const tiles = attentionTiles(starts, tileRows);
        const covered: number[] = [];
        for (let i = 0; i < tiles.length; i += 2) {
          const [s, first] = [tiles[i]!, tiles[i + 1]!];
          expect(first >= starts[s]! && first < starts[s + 1]!).toBe(true);
          for (let row = first; row < Math.min(starts[s + 1]!, first + tileRows); row++) covered.push(row);
        }
        expect(covered.sort((a, b) => a - b)).toEqual(Array.from({ length: rows }, (_, row) => row));
        const most = maxAttentionTiles(rows, fresh.filter((n) => n > 0).length + idle, tileRows);
        expect(tiles.length / 2).toBeLessThanOrEqual(most);
        expect(most).toBeLessThanOrEqual(rows);
      }),
    );
  });

  test("the bound is reached: all sequences but one have one row", () => {
    expect(attentionTiles([0, 1, 2, 35], 16).length / 2).toBe(maxAttentionTiles(35, 3, 16));
    expect(maxAttentionTiles(3, 8, 16)).toBe(3);
  });
});

const u32 = (values: number[], dims = [values.length]) => Tensor.from(gpu, dims, values, { dtype: "u32" });
const strips = (...starts: number[]): SlotLookup => ({
  part: "slots-contiguous",
  table: u32(starts),
  pageSize: 1,
});
const batchOf = (contextLens: number[], queryStarts: number[], sequenceOf: number[]) => {
  const tiles = [...attentionTiles(queryStarts, SMALL.rows)];
  return {
    contextLens: u32(contextLens),
    queryStarts: u32(queryStarts),
    sequenceOf: u32(sequenceOf),
    tiles: u32(tiles, [tiles.length / 2, 2]),
    tileRows: SMALL.rows,
  };
};

test("the same call 20 times gives the same bits", async () => {
  const cache = Tensor.from(gpu, [40, 2, 5], randomFloats(1, 400));
  const qkv = Tensor.from(gpu, [2, 30], randomFloats(2, 60));
  const batch = batchOf([33, 7], [0, 1, 2], [0, 1]);
  const lookup = strips(7, 0);
  await expectSameBits(() => flashAttentionWith(SMALL, qkv, cache, cache, lookup, batch, 0.4));
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const cache = Tensor.from(gpu, [2, 2, 2], randomFloats(3, 8), { purpose: "kv" });
    const qkv = Tensor.from(gpu, [1, 12], randomFloats(4, 12));
    const { tileRows, ...tensors } = batchOf([2], [0, 1], [0]);
    const lookup = strips(0);
    flashAttentionWith(SMALL, qkv, cache, cache, lookup, { ...tensors, tileRows }, 1).free();
    for (const tensor of [cache, qkv, lookup.table, ...Object.values(tensors)]) tensor.free();
  });
});

describe("wrong calls", () => {
  const qkv = Tensor.empty(gpu, [3, 24]);
  const cache = Tensor.empty(gpu, [8, 2, 4]);
  const batch = batchOf([3], [0, 3], [0, 0, 0]);
  const call = (change: object, lookup = strips(0), x = qkv) =>
    flashAttentionWith(SMALL, x, cache, cache, lookup, { ...batch, ...change }, 1);

  test("tiles are pairs", () => {
    expect(() => call({ tiles: u32([0, 0, 0], [1, 3]) })).toThrow(
      "flash-attention: tiles are [1, 3], wanted [n, 2]",
    );
    expect(() => call({ tiles: undefined })).toThrow("flash-attention: tiles are missing, wanted [n, 2]");
  });

  test("tiles are of as many rows as the kernel's", () => {
    expect(() => call({ tileRows: 64 })).toThrow(
      `flash-attention: the batch has tiles of 64 rows but the kernel's have ${SMALL.rows}`,
    );
  });

  test("there is a strip, or a row of pages, for each sequence", () => {
    expect(() => call({}, strips(0, 4))).toThrow(
      "flash-attention: the table is [2] but there are 1 sequences",
    );
    const pages: SlotLookup = { part: "slots-paged", table: u32([0, 1, 2, 3], [2, 2]), pageSize: 4 };
    expect(() => call({}, pages)).toThrow("flash-attention: the table is [2, 2] but there are 1 sequences");
  });

  test("qkv holds three vectors of the cache's width", () => {
    expect(() => call({}, strips(0), Tensor.empty(gpu, [3, 25]))).toThrow(
      "flash-attention: qkv is [3, 25] but the cache is [8, 2, 4]; qkv needs 3 · H · D columns",
    );
  });
});
