import { CHUNK, decodeAttention, type SlotLookup } from "../ops/decode-attention.ts";
import { mergeAttention } from "../ops/merge-attention.ts";
import { mergeMatvec } from "../ops/merge-matvec.ts";
import { normHead } from "../ops/norm-head.ts";
import { normMatvec } from "../ops/norm-matvec.ts";
import { normQkv } from "../ops/norm-qkv.ts";
import { ELEMENT_BYTES, product, Tensor } from "../tensor.ts";
import type { BenchShape, ShaderCase } from "./shader-case.ts";
import { STORED_AS_HALF, toleranceOf } from "./shader-check.ts";
import { type ShaderInputs, type Storage, shuffledIntegers, type Values } from "./shader-inputs.ts";
import { layernormOf, mergedOf, partialsOf, productOf, transposedProductOf } from "./shader-reference.ts";

// Cases of the kernels of a decode step: attention in chunks, and what is fused with a product.

/** Slots in a page, as `--page-size` has it by default. */
const PAGE_SIZE = 16;

/** GPT-2's own. */
const EPSILON = 1e-5;

const CACHED = ["f32", "f16"] as const;
const WEIGHTS = ["f32", "f16", "i8"] as const;
/** As --dtype says it. */
const NAMES = { f32: "f32", f16: "f16", i8: "int8" } as const;

/** The fused kernels, in the order in which a step runs them. */
export function decodeCases(shape: BenchShape): ShaderCase[] {
  const { contexts, fewRows } = shape;
  const [one, batch] = fewRows;
  return [
    ...WEIGHTS.map((dtype) => normQkvCase(shape, one, dtype)),
    ...CACHED.flatMap((dtype) => [
      ...contexts.flatMap((context) => [
        decodeAttentionCase(shape, one, context, dtype, "slots-contiguous"),
        decodeAttentionCase(shape, one, context, dtype, "slots-paged"),
      ]),
      decodeAttentionCase(shape, batch, contexts[1], dtype, "slots-paged"),
    ]),
    ...contexts.map((context) => mergeAttentionCase(shape, one, context)),
    ...WEIGHTS.flatMap((dtype) => contexts.map((context) => mergeMatvecCase(shape, one, context, dtype))),
    ...WEIGHTS.map((dtype) => normMatvecCase(shape, one, dtype)),
    ...WEIGHTS.map((dtype) => normHeadCase(shape, one, dtype)),
  ];
}

function decodeAttentionCase(
  { channels: C, heads }: BenchShape,
  sequences: number,
  context: number,
  dtype: (typeof CACHED)[number],
  part: SlotLookup["part"],
): ShaderCase {
  const headSize = C / heads;
  const chunks = Math.ceil(context / CHUNK);
  const paged = part === "slots-paged";
  const { nmse, maxAbs } = toleranceOf("attention", dtype);
  return {
    kernel: "decode-attention",
    variant: `${dtype} kv, ${paged ? "paged" : "contiguous"}`,
    shape: `${sequences}×${context}`,
    readBytes: 4 * sequences * C + 2 * sequences * context * C * ELEMENT_BYTES[dtype],
    writeBytes: 4 * sequences * heads * chunks * (headSize + 4),
    flops: 4 * C * sequences * context,
    // Weights are not normalised: their sum is up to a chunk's length.
    tolerance: { nmse, maxAbs: 10 * maxAbs },
    prepare(inputs) {
      // Pages in random order, as they are after a server has run for a while.
      const pages = Math.ceil(context / PAGE_SIZE);
      const order = shuffledIntegers(sequences * pages);
      const slots = paged ? order.length * PAGE_SIZE : sequences * context;
      const q = inputs.random([sequences, C]);
      const k = inputs.random([slots, heads, headSize], dtype);
      const v = inputs.random([slots, heads, headSize], dtype);
      const bySequence = <T>(make: (sequence: number) => T) =>
        Array.from({ length: sequences }, (_, s) => make(s));
      // One row of pages is a table all the same.
      const pageTable = () => {
        const { gpu, allocation, offset } = inputs.integers([order]);
        return new Tensor(gpu, [sequences, pages], "u32", allocation, offset);
      };
      const lookup: SlotLookup = paged
        ? { part, table: pageTable(), pageSize: PAGE_SIZE }
        : { part, table: inputs.integers([bySequence((s) => s * context)]), pageSize: 1 };
      const slot = (s: number, position: number) =>
        paged
          ? order[s * pages + Math.floor(position / PAGE_SIZE)]! * PAGE_SIZE + (position % PAGE_SIZE)
          : s * context + position;
      const lens = inputs.integers([bySequence(() => context)]);
      const scale = 1 / Math.sqrt(headSize);
      return {
        run: () => [decodeAttention(q.tensor, k.tensor, v.tensor, lookup, lens, context, scale)],
        expected: [
          partialsOf({ q: q.at, k: k.at, v: v.at, heads, headSize, scale, context, chunk: CHUNK, slot }),
        ],
      };
    },
  };
}

/** Partial results as decodeAttention leaves them: numbers in [-1, 1], and sums of weights from 1 to 3. */
function randomPartials(inputs: ShaderInputs, shape: readonly number[]): { tensor: Tensor; at: Values } {
  const width = shape.at(-1)!;
  const { at: random } = inputs.random(shape);
  const values = Float32Array.from(
    { length: product(shape) },
    (_, i) => random(i) + (i % width === width - 3 ? 2 : 0),
  );
  return { tensor: inputs.floats(shape, values), at: (index) => values[index]! };
}

/** Inputs of what merges the chunks of a context, and the merged rows. */
function merging({ channels: C, heads }: BenchShape, sequences: number, context: number) {
  const headSize = C / heads;
  const chunks = Math.ceil(context / CHUNK);
  const dims = [sequences, heads, chunks, headSize + 4];
  return {
    bytes: 4 * product(dims),
    prepare(inputs: ShaderInputs) {
      const partials = randomPartials(inputs, dims);
      const lens = inputs.integers([Array.from({ length: sequences }, () => context)]);
      return { partials: partials.tensor, lens, merged: mergedOf(partials.at, headSize, chunks) };
    },
  };
}

function mergeAttentionCase(shape: BenchShape, sequences: number, context: number): ShaderCase {
  const { bytes, prepare } = merging(shape, sequences, context);
  return {
    kernel: "merge-attention",
    variant: "f32",
    shape: `${sequences}×${context}`,
    readBytes: bytes,
    writeBytes: 4 * sequences * shape.channels,
    flops: 0,
    tolerance: toleranceOf("attention"),
    prepare(inputs) {
      const { partials, lens, merged } = prepare(inputs);
      return { run: () => [mergeAttention(partials, lens)], expected: [merged] };
    },
  };
}

/** Bytes and operations of a product of `rows` rows [K] with a matrix [K, N] or [N, K], beside its input and result. */
function productCosts(rows: number, K: number, N: number, dtype: Storage) {
  return {
    weightBytes: K * N * ELEMENT_BYTES[dtype] + (dtype === "i8" ? 4 * N : 0),
    flops: 2 * rows * K * N,
  };
}

function mergeMatvecCase(shape: BenchShape, sequences: number, context: number, dtype: Storage): ShaderCase {
  const C = shape.channels;
  const { weightBytes, flops } = productCosts(sequences, C, C, dtype);
  const { bytes, prepare } = merging(shape, sequences, context);
  return {
    kernel: "merge-matvec",
    variant: NAMES[dtype],
    shape: `attn.c_proj ${sequences}×${context}`,
    readBytes: bytes + weightBytes + 4 * C * (1 + sequences),
    writeBytes: 4 * sequences * C,
    flops,
    tolerance: toleranceOf("product", dtype, C),
    prepare(inputs) {
      const { partials, lens, merged } = prepare(inputs);
      const { weight, bias, at } = inputs.randomLinear(C, C, dtype);
      const residual = inputs.random([sequences, C]);
      return {
        run: () => [mergeMatvec(partials, lens, weight, bias, residual.tensor)],
        expected: [productOf({ x: merged, ...at, residual: residual.at }, C, C)],
      };
    },
  };
}

/** A random row for each of `rows`, the weights of a norm, and the normalised rows. */
function norming(inputs: ShaderInputs, rows: number, C: number) {
  const [x, norm] = [inputs.random([rows, C]), inputs.random([2, C])];
  const normed = layernormOf(x.at, norm.at, (c) => norm.at(C + c), C, EPSILON);
  return { x: x.tensor, norm: norm.tensor, normed };
}

function normMatvecCase({ channels: C }: BenchShape, rows: number, dtype: Storage): ShaderCase {
  const { weightBytes, flops } = productCosts(rows, C, 4 * C, dtype);
  return {
    kernel: "norm-matvec",
    variant: `${NAMES[dtype]}, gelu`,
    shape: `c_fc ${rows}×${C}×${4 * C}`,
    readBytes: 4 * C * (rows + 2) + weightBytes + 4 * 4 * C,
    writeBytes: 4 * rows * 4 * C,
    flops,
    tolerance: toleranceOf("product", dtype, C),
    prepare(inputs) {
      const { x, norm, normed } = norming(inputs, rows, C);
      const { weight, bias, at } = inputs.randomLinear(C, 4 * C, dtype);
      return {
        run: () => [normMatvec(x, norm, EPSILON, weight, bias, "gelu-tanh")],
        expected: [productOf({ x: normed, ...at }, C, 4 * C, true)],
      };
    },
  };
}

/** Keys and values as floats, or with f16 weights as halves: as a model has them. */
function normQkvCase({ channels: C, heads }: BenchShape, rows: number, dtype: Storage): ShaderCase {
  const { weightBytes, flops } = productCosts(rows, C, 3 * C, dtype);
  const kv = dtype === "f32" ? "f32" : "f16";
  const tolerance = toleranceOf("product", dtype, C);
  return {
    kernel: "norm-qkv",
    variant: `${NAMES[dtype]}, ${kv} kv`,
    shape: `c_attn ${rows}×${C}×${3 * C}`,
    readBytes: 4 * C * (rows + 2) + weightBytes + 4 * 3 * C,
    writeBytes: rows * C * (4 + 2 * ELEMENT_BYTES[kv]),
    flops,
    // Halves up to 64 lie up to 2^-5 apart, 64 times as far as those below 1.
    tolerance: kv === "f32" ? tolerance : { nmse: 1e-6, maxAbs: 64 * STORED_AS_HALF.maxAbs },
    prepare(inputs) {
      const { x, norm, normed } = norming(inputs, rows, C);
      const { weight, bias, at } = inputs.randomLinear(C, 3 * C, dtype);
      const slots = shuffledIntegers(rows);
      const slotMapping = inputs.integers([slots]);
      const qkv = productOf({ x: normed, ...at }, C, 3 * C);
      const third = (part: number) => (index: number) => {
        const [row, c] = [Math.floor(index / C), index % C];
        return qkv((part === 0 ? row : slots.indexOf(row)) * 3 * C + part * C + c);
      };
      return {
        run() {
          const cache = () =>
            Tensor.empty(inputs.gpu, [rows, heads, C / heads], { dtype: kv, label: "norm-qkv" });
          const [k, v] = [cache(), cache()];
          return [normQkv(x, norm, EPSILON, weight, bias, slotMapping, k, v), k, v];
        },
        expected: [third(0), third(1), third(2)],
      };
    },
  };
}

function normHeadCase({ channels: C, vocabulary: V }: BenchShape, rows: number, dtype: Storage): ShaderCase {
  const { weightBytes, flops } = productCosts(rows, C, V, dtype);
  return {
    kernel: "norm-head",
    variant: NAMES[dtype],
    shape: `head ${rows}×${C}×${V}`,
    readBytes: 4 * C * (rows + 2) + weightBytes,
    writeBytes: 4 * rows * V,
    flops,
    tolerance: toleranceOf("product", dtype, C),
    prepare(inputs) {
      const { x, norm, normed } = norming(inputs, rows, C);
      const { table, at } = inputs.randomTable(V, C, dtype);
      return {
        run() {
          const { logits, bests } = normHead(x, norm, EPSILON, table);
          bests.table.free();
          return [logits];
        },
        expected: [transposedProductOf(normed, at, C, V)],
      };
    },
  };
}
