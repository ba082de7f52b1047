import { add } from "../ops/add.ts";
import { argmax } from "../ops/argmax.ts";
import { embedding } from "../ops/embedding.ts";
import { gatherRows } from "../ops/gather-rows.ts";
import { type GeluForm, gelu } from "../ops/gelu.ts";
import { layernorm } from "../ops/layernorm.ts";
import { matmulTransposed } from "../ops/matmul-transposed.ts";
import { softmax } from "../ops/softmax.ts";
import type { BenchShape, ShaderCase } from "./shader-case.ts";
import { attentionCases, kvWriteCases } from "./shader-cases-attention.ts";
import { decodeCases } from "./shader-cases-decode.ts";
import { DTYPES, ladderCases, matrixBytes, NAMES, productCases } from "./shader-cases-product.ts";
import { toleranceOf } from "./shader-check.ts";
import { randomIntegers, type Storage } from "./shader-inputs.ts";
import { argmaxOf, geluOf, layernormOf, softmaxOf, transposedProductOf } from "./shader-reference.ts";

/** GPT-2's own. */
const EPSILON = 1e-5;

/** Every kernel and variant at the sizes of a model, in the order in which a step runs them. */
export function shaderCases(shape: BenchShape): ShaderCase[] {
  const { channels, vocabulary, fewRows, manyRows } = shape;
  const oneAndMany = [fewRows[0], manyRows[1]];
  return [
    ...DTYPES.flatMap((dtype) => oneAndMany.map((rows) => embeddingCase(shape, rows, dtype))),
    ...oneAndMany.map((rows) => layernormCase(rows, channels)),
    ...productCases(shape),
    ...ladderCases(shape),
    ...kvWriteCases(shape),
    ...attentionCases(shape),
    ...decodeCases(shape),
    ...(["gelu-tanh", "gelu-erf"] as const).map((form) => geluCase(manyRows[1], 4 * channels, form)),
    addCase(manyRows[1], channels),
    gatherRowsCase(manyRows[1], channels, fewRows[1]),
    ...DTYPES.flatMap((dtype) => fewRows.map((rows) => headCase(rows, channels, vocabulary, dtype))),
    ...fewRows.map((rows) => softmaxCase(rows, vocabulary)),
    ...fewRows.map((rows) => argmaxCase(rows, vocabulary)),
  ];
}

/** The head: x [rows, C] · wᵀ, w [V, C]. */
export function headCase(rows: number, C: number, V: number, dtype: Storage): ShaderCase {
  return {
    kernel: "matmul-transposed",
    variant: NAMES[dtype],
    shape: `head ${rows}×${C}×${V}`,
    readBytes: rows * C * 4 + matrixBytes(V, C, dtype, V),
    writeBytes: rows * V * 4,
    flops: 2 * rows * C * V,
    tolerance: toleranceOf("product", dtype, C),
    prepare(inputs) {
      const x = inputs.random([rows, C]);
      const { table, at } = inputs.randomTable(V, C, dtype);
      return {
        run: () => [matmulTransposed(x.tensor, table)],
        expected: [transposedProductOf(x.at, at, C, V)],
      };
    },
  };
}

function embeddingCase(shape: BenchShape, tokens: number, dtype: Storage): ShaderCase {
  const { channels: C, vocabulary: V, positions: P } = shape;
  return {
    kernel: "embedding",
    variant: NAMES[dtype],
    shape: `${tokens}×${C} of ${V}`,
    readBytes: tokens * (2 * matrixBytes(1, C, dtype, 1) + 8),
    writeBytes: tokens * C * 4,
    flops: 0,
    tolerance: toleranceOf("add"),
    prepare(inputs) {
      const wte = inputs.randomTable(V, C, dtype);
      const wpe = inputs.randomTable(P, C, dtype);
      const ids = randomIntegers(tokens, V);
      const places = randomIntegers(tokens, P);
      const [tokenIds, positions] = [inputs.integers([ids]), inputs.integers([places])];
      return {
        run: () => [embedding(tokenIds, positions, wte.table, wpe.table)],
        expected: [
          (index) => {
            const [t, c] = [Math.floor(index / C), index % C];
            return wte.at(ids[t]! * C + c) + wpe.at(places[t]! * C + c);
          },
        ],
      };
    },
  };
}

function layernormCase(rows: number, C: number): ShaderCase {
  return {
    ...rowwise("layernorm", "f32", rows, C),
    readBytes: (rows + 2) * C * 4,
    tolerance: toleranceOf("layernorm"),
    prepare(inputs) {
      const [x, norm] = [inputs.random([rows, C]), inputs.random([2, C])];
      return {
        run: () => [layernorm(x.tensor, norm.tensor, EPSILON)],
        expected: [layernormOf(x.at, norm.at, (c) => norm.at(C + c), C, EPSILON)],
      };
    },
  };
}

/** What kernels that make [rows, cols] floats of [rows, cols] floats have in common. */
function rowwise(kernel: string, variant: string, rows: number, cols: number) {
  const bytes = rows * cols * 4;
  return { kernel, variant, shape: `${rows}×${cols}`, readBytes: bytes, writeBytes: bytes, flops: 0 };
}

function geluCase(rows: number, cols: number, form: GeluForm): ShaderCase {
  return {
    ...rowwise("gelu", `f32, ${form === "gelu-tanh" ? "tanh" : "erf"}`, rows, cols),
    tolerance: toleranceOf("gelu"),
    prepare(inputs) {
      const x = inputs.random([rows, cols]);
      return { run: () => [gelu(x.tensor, form)], expected: [geluOf(x.at, form)] };
    },
  };
}

export function addCase(rows: number, cols: number): ShaderCase {
  return {
    ...rowwise("add", "f32", rows, cols),
    readBytes: 2 * rows * cols * 4,
    tolerance: toleranceOf("add"),
    prepare(inputs) {
      const [a, b] = [inputs.random([rows, cols]), inputs.random([rows, cols])];
      return { run: () => [add(a.tensor, b.tensor)], expected: [(index) => a.at(index) + b.at(index)] };
    },
  };
}

function gatherRowsCase(rows: number, cols: number, count: number): ShaderCase {
  return {
    ...rowwise("gather-rows", "f32", count, cols),
    shape: `${count} of ${rows}×${cols}`,
    tolerance: toleranceOf("copy"),
    prepare(inputs) {
      const x = inputs.random([rows, cols]);
      const chosen = randomIntegers(count, rows);
      const list = inputs.integers([chosen]);
      return {
        run: () => [gatherRows(x.tensor, list)],
        expected: [(index) => x.at(chosen[Math.floor(index / cols)]! * cols + (index % cols))],
      };
    },
  };
}

function softmaxCase(rows: number, cols: number): ShaderCase {
  return {
    ...rowwise("softmax", "f32", rows, cols),
    tolerance: toleranceOf("softmax"),
    prepare(inputs) {
      const x = inputs.random([rows, cols]);
      return { run: () => [softmax(x.tensor)], expected: [softmaxOf(x.at, cols)] };
    },
  };
}

function argmaxCase(rows: number, cols: number): ShaderCase {
  return {
    ...rowwise("argmax", "f32", rows, cols),
    writeBytes: rows * 4,
    tolerance: toleranceOf("copy"),
    prepare(inputs) {
      const x = inputs.random([rows, cols]);
      return { run: () => [argmax(x.tensor)], expected: [argmaxOf(x.at, cols)] };
    },
  };
}
