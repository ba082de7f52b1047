import { describe, expect, test } from "vitest";
import { Kernel } from "../../src/gpu/kernel.ts";
import { embedding } from "../../src/ops/embedding.ts";
import { type Dtype, Tensor } from "../../src/tensor.ts";
import {
  expectLedgerUnchanged,
  expectSameBits,
  openTestGpu,
  withGuards,
  withGuardsAll,
} from "../gpu-fixture.ts";
import { expectClose, scaledTo, TOLERANCE } from "../numerics.ts";
import * as reference from "../reference.ts";
import { randomFloats, VALUES, VALUES_NAMES } from "../values.ts";
import { storedTable, tableOf } from "./table-of.ts";

const gpu = await openTestGpu();

// A workgroup makes 64 quads, 256 channels, of one token.
const SHAPES = [
  { tokens: 1, cols: 1, why: "one thread works" },
  { tokens: 3, cols: 3, why: "one channel of padding" },
  { tokens: 15, cols: 65, why: "most threads idle" },
  { tokens: 2, cols: 256, why: "exactly one workgroup a token" },
  { tokens: 17, cols: 257, why: "one thread past it" },
  { tokens: 16, cols: 769, why: "several workgroups a token" },
  { tokens: 1023, cols: 5, why: "many tokens" },
];
const VOCABULARY = 37;
const PLACES = 11;

/** Ids and positions that reach the first and the last row of both tables, and repeat some. */
const idsFor = (tokens: number) => ({
  ids: Array.from({ length: tokens }, (_, t) => (VOCABULARY - 1 + t * 5) % VOCABULARY),
  positions: Array.from({ length: tokens }, (_, t) => (PLACES - 1 + t * 3) % PLACES),
});

describe.each(["f32", "f16", "i8"] as const)("%s", (dtype) => {
  const tolerance = TOLERANCE.add[dtype];

  /** wte in blocks of the given numbers of rows. */
  const run = (tokens: number, cols: number, wte: Float32Array, wpe: Float32Array, blocks = [VOCABULARY]) => {
    const { ids, positions } = idsFor(tokens);
    return withGuards(gpu, () => {
      return embedding(
        Tensor.from(gpu, [tokens], ids, { dtype: "u32" }),
        Tensor.from(gpu, [tokens], positions, { dtype: "u32" }),
        tableOf(gpu, wte, cols, dtype, blocks),
        tableOf(gpu, wpe, cols, dtype),
      );
    });
  };
  const expected = (tokens: number, cols: number, wte: Float32Array, wpe: Float32Array) => {
    const { ids, positions } = idsFor(tokens);
    return reference.embedding(
      ids,
      positions,
      storedTable(wte, cols, dtype),
      storedTable(wpe, cols, dtype),
      cols,
    );
  };

  test.each(SHAPES)("[$tokens, $cols]: $why", async ({ tokens, cols }) => {
    const [wte, wpe] = [randomFloats(1, VOCABULARY * cols), randomFloats(2, PLACES * cols)];
    expectClose((await run(tokens, cols, wte, wpe)).values, expected(tokens, cols, wte, wpe), tolerance);
  });

  test.each(VALUES_NAMES)("values: %s", async (name) => {
    const [wte, wpe] = [VALUES[name](VOCABULARY, 65, 3), randomFloats(4, PLACES * 65)];
    const wanted = expected(17, 65, wte, wpe);
    expectClose((await run(17, 65, wte, wpe)).values, wanted, scaledTo(wanted, tolerance));
  });

  test("a table in blocks gives the bits of the whole table", async () => {
    const [wte, wpe] = [randomFloats(5, VOCABULARY * 65), randomFloats(6, PLACES * 65)];
    const whole = await run(VOCABULARY, 65, wte, wpe);
    expect((await run(VOCABULARY, 65, wte, wpe, [1, 16, 20])).bits).toEqual(whole.bits);
    expect((await run(VOCABULARY, 65, wte, wpe, [36, 1])).bits).toEqual(whole.bits);
  });

  test("a position table of zeros leaves the token's row: to the bit, but for the scale of bytes", async () => {
    const wte = randomFloats(7, VOCABULARY * 65);
    const { values } = await run(VOCABULARY, 65, wte, new Float32Array(PLACES * 65));
    const { ids } = idsFor(VOCABULARY);
    const exact = dtype === "i8" ? tolerance : TOLERANCE.copy[dtype];
    expectClose(values, reference.gatherRows(storedTable(wte, 65, dtype), ids, 65), exact);
  });

  test("the same call 20 times gives the same bits", async () => {
    const ids = Tensor.from(gpu, [3], [4, 0, 4], { dtype: "u32" });
    const table = tableOf(gpu, randomFloats(8, 5 * 65), 65, dtype);
    await expectSameBits(() => embedding(ids, ids, table, table));
  });
});

test("a dispatch leaves the tokens alone whose row its block does not hold", async () => {
  const wte = randomFloats(10, 3 * 5);
  const run = () => {
    const y = Tensor.empty(gpu, [5, 5]);
    const buffers = {
      token_ids: Tensor.from(gpu, [5], [6, 7, 8, 9, 10], { dtype: "u32" }),
      positions: Tensor.from(gpu, [5], [0, 0, 0, 0, 0], { dtype: "u32" }),
      wte: Tensor.from(gpu, [3, 5], wte),
      wte_scales: Tensor.from(gpu, [1], [1]),
      wpe: Tensor.from(gpu, [1, 5], new Float32Array(5)),
      wpe_scales: Tensor.from(gpu, [1], [1]),
      y,
    };
    new Kernel("embedding").run(gpu, buffers, { quads: 2, first_row: 7, rows: 3 }, [1, 5]);
    return [y];
  };
  const [y] = await withGuardsAll(gpu, run, "any");
  expect(y!.values.slice(5, 20)).toEqual(wte);
  const untouched = [...y!.bits.subarray(0, 8), ...y!.bits.subarray(32)];
  expect(untouched).toEqual(new Array(16).fill(y!.guard));
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const ids = Tensor.from(gpu, [3], [1, 0, 1], { dtype: "u32" });
    const table = Tensor.from(gpu, [2, 5], randomFloats(9, 10), { purpose: "weights" });
    embedding(ids, ids, { blocks: [table] }, { blocks: [table] }).free();
    ids.free();
    table.free();
  });
});

describe("wrong calls", () => {
  const ids = Tensor.from(gpu, [3], [1, 0, 1], { dtype: "u32" });
  const empty = (rows: number, cols: number, dtype: Dtype = "f32") =>
    Tensor.empty(gpu, [rows, cols], { dtype });
  const wpe = { blocks: [empty(2, 8)] };

  test("as many positions as tokens", () => {
    const two = Tensor.from(gpu, [2], [0, 1], { dtype: "u32" });
    expect(() => embedding(ids, two, wpe, wpe)).toThrow("embedding: 3 token ids but 2 positions");
  });

  test("columns and dtype of both tables", () => {
    expect(() => embedding(ids, ids, { blocks: [empty(4, 8, "f16")] }, wpe)).toThrow(
      "embedding: wte is f16 [4, 8] but wpe is f32 [2, 8]; columns and dtype must be equal",
    );
    expect(() => embedding(ids, ids, { blocks: [empty(4, 9)] }, wpe)).toThrow(
      "wte is f32 [4, 9] but wpe is f32 [2, 8]",
    );
  });

  test("blocks that are alike, and one of positions", () => {
    const mixed = { blocks: [empty(4, 8), empty(4, 8, "f16")] };
    expect(() => embedding(ids, ids, mixed, wpe)).toThrow(
      "embedding: wte has blocks of f32 with 8 columns and of f16 with 8; all must be alike",
    );
    expect(() => embedding(ids, ids, { blocks: [] }, wpe)).toThrow("embedding: wte has no blocks");
    const two = { blocks: [empty(1, 8), empty(1, 8)] };
    expect(() => embedding(ids, ids, wpe, two)).toThrow("embedding: wpe has 2 blocks; wanted one");
  });

  test("scales for every row of bytes, and for nothing else", () => {
    const bytes = { blocks: [empty(4, 8, "i8")] };
    const scales = Tensor.empty(gpu, [3]);
    expect(() => embedding(ids, ids, bytes, wpe)).toThrow(
      "embedding: wte is i8 with 4 rows and no scales; wanted 4",
    );
    expect(() => embedding(ids, ids, { ...bytes, scales }, wpe)).toThrow("and 3 scales; wanted 4");
    expect(() => embedding(ids, ids, { ...wpe, scales }, wpe)).toThrow(
      "wte is f32 with 2 rows and 3 scales; wanted none",
    );
  });
});
