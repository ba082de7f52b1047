import { describe, expect, test } from "vitest";
import type { Gpu } from "../../src/gpu/gpu.ts";
import { kvWrite } from "../../src/ops/kv-write.ts";
import { layernorm } from "../../src/ops/layernorm.ts";
import { matvec } from "../../src/ops/matvec.ts";
import { normQkv } from "../../src/ops/norm-qkv.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, withGuardsAll } from "../gpu-fixture.ts";
import { expectClose, matmulTolerance, scaledTo } from "../numerics.ts";
import * as reference from "../reference.ts";
import { randomFloats, shuffled, VALUES, VALUES_NAMES } from "../values.ts";
import { openForms } from "./fused-forms.ts";
import { matrixOf, storedMatrix, WEIGHT_DTYPES } from "./matrix-of.ts";
import type { TableDtype } from "./table-of.ts";

const FORMS = await openForms();
const EPSILON = 1e-5;
const KV_DTYPES = ["f32", "f16"] as const;

// A share is 24 rows of w, a group 8 shares.
const SHAPES = [
  { rows: 1, heads: 1, headSize: 4, why: "one quad each of query, key and value" },
  { rows: 2, heads: 3, headSize: 8, why: "exactly one share" },
  { rows: 5, heads: 7, headSize: 4, why: "one quad past a share" },
  // SwiftShader takes up to a second to compile for rows as wide as these, so one storage must do.
  { rows: 2, heads: 6, headSize: 64, storage: ["f32", "f32"], why: "exactly a group" },
  { rows: 1, heads: 97, headSize: 4, storage: ["i8", "f16"], why: "one quad past a group" },
  { rows: 1, heads: 12, headSize: 64, storage: ["f16", "f16"], why: "GPT-2's; workgroups of 16 columns" },
] as const;

interface Case {
  readonly heads: number;
  readonly headSize: number;
  readonly x: Float32Array;
  readonly weight: Float32Array;
  readonly shift: Float32Array;
  readonly w: Float32Array;
  readonly bias: Float32Array;
  /** The slot of each row, of SLOTS. */
  readonly mapping: readonly number[];
}
const SLOTS = 9;
function uniform(rows: number, heads: number, headSize: number): Case {
  const C = heads * headSize;
  return {
    heads,
    headSize,
    x: randomFloats(1, rows * C),
    weight: randomFloats(2, C),
    shift: randomFloats(3, C),
    w: randomFloats(4, 3 * C * C),
    bias: randomFloats(5, 3 * C),
    mapping: shuffled(6, SLOTS).slice(0, rows),
  };
}

/** Key cache, value cache, and the queries; of the chain query, key and value as the product left them. */
function run(on: Gpu, dtype: TableDtype, kv: "f32" | "f16", how: "fused" | "chain", given: Case) {
  const C = given.heads * given.headSize;
  return withGuardsAll(on, () => {
    const [k, v] = [0, 1].map(() => Tensor.empty(on, [SLOTS, given.heads, given.headSize], { dtype: kv }));
    const x = Tensor.from(on, [given.x.length / C, C], given.x);
    const norm = Tensor.from(on, [2, C], [...given.weight, ...given.shift]);
    const { w, bias } = matrixOf(on, given.w, given.bias, dtype);
    const slots = Tensor.from(on, [x.rows], given.mapping, { dtype: "u32" });
    if (how === "fused") return [k!, v!, normQkv(x, norm, EPSILON, w, bias, slots, k!, v!)];
    const qkv = matvec(layernorm(x, norm, EPSILON), w, bias);
    kvWrite(qkv, slots, k!, v!);
    return [k!, v!, qkv];
  });
}

/** The fused kernel's results are those of the chain, and slots that no token was mapped to keep what they held. */
async function expectChainsBits(on: Gpu, dtype: TableDtype, kv: "f32" | "f16", given: Case) {
  const C = given.heads * given.headSize;
  const [k, v, q] = await run(on, dtype, kv, "fused", given);
  const [chainK, chainV, qkv] = await run(on, dtype, kv, "chain", given);
  expect(k!.bits).toEqual(chainK!.bits);
  expect(v!.bits).toEqual(chainV!.bits);
  given.mapping.forEach((_, row) => {
    expect(q!.bits.slice(row * C, (row + 1) * C)).toEqual(qkv!.bits.slice(row * 3 * C, row * 3 * C + C));
  });
  const words = k!.bits.length / SLOTS;
  for (let slot = 0; slot < SLOTS; slot++)
    if (!given.mapping.includes(slot))
      for (const { bits, guard } of [k!, v!])
        expect(bits.slice(slot * words, (slot + 1) * words).every((word) => word === guard)).toBe(true);
  return { k: k!.values, q: q!.values };
}

describe.each(FORMS)("the form for $form", ({ on }) => {
  test.each(SHAPES)(
    "$rows rows, $heads heads of $headSize: layernorm, matvec and kvWrite, bit for bit: $why",
    async ({ rows, heads, headSize, ...shape }) => {
      const C = heads * headSize;
      const given = uniform(rows, heads, headSize);
      const normed = reference.layernorm(given.x, given.weight, given.shift, EPSILON);
      const storages =
        "storage" in shape
          ? [shape.storage]
          : WEIGHT_DTYPES.map((dtype, i) => [dtype, KV_DTYPES[i % 2]!] as const);
      for (const [dtype, kv] of storages) {
        const { k, q } = await expectChainsBits(on, dtype, kv, given);
        const { values } = reference.matmul(normed, storedMatrix(given.w, 3 * C, dtype), given.bias);
        const rowOf = (row: number, part: number) =>
          values.slice((3 * row + part) * C, (3 * row + part + 1) * C);
        const tolerance = scaledTo(values, matmulTolerance(C, dtype));
        given.mapping.forEach((slot, row) => {
          expectClose(q.slice(row * C, (row + 1) * C), rowOf(row, 0), tolerance);
          // Half a unit of a half's 11 bits is what storing costs.
          const rounding = kv === "f16" ? 2 ** -11 : 0;
          const keys = { nmse: Math.max(tolerance.nmse, rounding ** 2), maxAbs: tolerance.maxAbs };
          const expected = rowOf(row, 1);
          const largest = Math.max(...expected.map(Math.abs));
          expectClose(k.slice(slot * C, (slot + 1) * C), expected, {
            ...keys,
            maxAbs: keys.maxAbs + rounding * largest,
          });
        });
      }
    },
  );

  test.each(["f32", "i8"] as const)("weights in %s beside keys and values in f16 and f32", async (dtype) => {
    for (const kv of KV_DTYPES) await expectChainsBits(on, dtype, kv, uniform(2, 2, 8));
  });

  test.each(VALUES_NAMES)("the bits of the three for values of x: %s", async (name) => {
    const given = uniform(2, 3, 8);
    await expectChainsBits(on, "f32", "f16", { ...given, x: VALUES[name](2, 24, 7) });
  });

  test("values past the largest half saturate, as kvWrite has them", async () => {
    const given = uniform(2, 3, 8);
    await expectChainsBits(on, "f32", "f16", { ...given, bias: given.bias.map((b) => b * 1e6) });
  });
});

test("the order of the rows does not matter, only their slots", async () => {
  const { on } = FORMS[0]!;
  const given = uniform(3, 3, 8);
  const [k, v] = await run(on, "f32", "f32", "fused", given);
  const order = [2, 0, 1];
  const moved: Case = {
    ...given,
    x: Float32Array.from(order.flatMap((row) => [...given.x.slice(row * 24, (row + 1) * 24)])),
    mapping: order.map((row) => given.mapping[row]!),
  };
  const [sameK, sameV] = await run(on, "f32", "f32", "fused", moved);
  expect([sameK!.bits, sameV!.bits]).toEqual([k!.bits, v!.bits]);
});

test("the ledger is back where it started", async () => {
  const { on } = FORMS[0]!;
  await expectLedgerUnchanged(on, () => {
    const [x, norm, w, bias] = [
      [1, 4],
      [2, 4],
      [4, 12],
      [1, 12],
    ].map((shape) => Tensor.from(on, shape, randomFloats(9, shape[0]! * shape[1]!)));
    const [k, v] = [0, 1].map(() => Tensor.empty(on, [2, 1, 4], { purpose: "kv" }));
    const slots = Tensor.from(on, [1], [1], { dtype: "u32" });
    normQkv(x!, norm!, EPSILON, w!, bias!, slots, k!, v!).free();
    for (const tensor of [x, norm, w, bias, k, v, slots]) tensor!.free();
  });
});

describe("wrong calls", () => {
  const { on } = FORMS[0]!;
  const empty = (...shape: number[]) => Tensor.empty(on, shape);
  const given = {
    ...{ x: empty(2, 8), norm: empty(2, 8), w: empty(8, 24), bias: empty(1, 24) },
    ...{ slots: Tensor.empty(on, [2], { dtype: "u32" }), k: empty(9, 2, 4), v: empty(9, 2, 4) },
  };
  const call = (changed: Partial<typeof given>) => () => {
    const { x, norm, w, bias, slots, k, v } = { ...given, ...changed };
    return normQkv(x, norm, EPSILON, w, bias, slots, k, v);
  };

  test("norm is as wide as x", () => {
    expect(call({ norm: empty(2, 9) })).toThrow("norm-qkv: x is [2, 8] but norm is [2, 9]; wanted [2, 8]");
  });

  test("x's columns are w's rows, and bias is as wide as w", () => {
    expect(call({ w: empty(9, 24) })).toThrow("norm-qkv: x is [2, 8] but w is [9, 24]");
    expect(call({ bias: empty(1, 23) })).toThrow(
      "norm-qkv: w is f32 [8, 24] but bias is [1, 23]; wanted [1, 24]",
    );
  });

  test("w gives query, key and value of the cache's width", () => {
    expect(call({ w: empty(8, 16), bias: empty(1, 16) })).toThrow(
      "norm-qkv: x is [2, 8], w [8, 16] and the cache [9, 2, 4]; wanted C = H · D and w [C, 3 · C]",
    );
    const [k, v] = [empty(9, 3, 4), empty(9, 3, 4)];
    expect(call({ k, v })).toThrow("and the cache [9, 3, 4]; wanted C = H · D");
  });

  test("keys and values are alike, in heads of whole quads", () => {
    expect(call({ v: empty(8, 2, 4) })).toThrow(
      "norm-qkv: k is f32 [9, 2, 4] but v is f32 [8, 2, 4]; both must be [slots, H, D] of one dtype",
    );
    const [k, v] = [empty(9, 4, 2), empty(9, 4, 2)];
    expect(call({ k, v })).toThrow("norm-qkv: heads of 2 channels; wanted a multiple of 4");
  });

  test("one slot for each row", () => {
    expect(call({ slots: Tensor.empty(on, [3], { dtype: "u32" }) })).toThrow(
      "norm-qkv: x is [2, 8] but there are 3 slots",
    );
  });
});
