import { Kernel } from "../gpu/kernel.ts";
import { add } from "../ops/add.ts";
import { argmax } from "../ops/argmax.ts";
import { embedding } from "../ops/embedding.ts";
import { gatherRows } from "../ops/gather-rows.ts";
import { type GeluForm, gelu } from "../ops/gelu.ts";
import { layernorm } from "../ops/layernorm.ts";
import { matmul, productArguments } from "../ops/matmul.ts";
import { matmulTransposed } from "../ops/matmul-transposed.ts";
import { matvec } from "../ops/matvec.ts";
import { sharesForm } from "../ops/product.ts";
import { softmax } from "../ops/softmax.ts";
import { ELEMENT_BYTES, type Tensor } from "../tensor.ts";
import type { BenchShape, ShaderCase } from "./shader-case.ts";
import { attentionCases, kvWriteCases } from "./shader-cases-attention.ts";
import { decodeCases } from "./shader-cases-decode.ts";
import { toleranceOf } from "./shader-check.ts";
import { randomIntegers, type Storage } from "./shader-inputs.ts";
import {
  argmaxOf,
  geluOf,
  layernormOf,
  productOf,
  softmaxOf,
  transposedProductOf,
} from "./shader-reference.ts";

const DTYPES: readonly Storage[] = ["f32", "f16", "i8"];

/** As --dtype says it. */
const NAMES: Record<Storage, string> = { f32: "f32", f16: "f16", i8: "int8" };

/** GPT-2's own. */
const EPSILON = 1e-5;

/** Every kernel and variant at the sizes of a model, in the order in which a step runs them. */
export function shaderCases(shape: BenchShape): ShaderCase[] {
  const { channels, vocabulary, fewRows, manyRows } = shape;
  const oneAndMany = [fewRows[0], manyRows[1]];
  return [
    ...DTYPES.flatMap((dtype) => oneAndMany.map((rows) => embeddingCase(shape, rows, dtype))),
    ...oneAndMany.map((rows) => layernormCase(rows, channels)),
    ...DTYPES.flatMap((dtype) =>
      manyRows.flatMap((rows) => linears(channels).map((linear) => productCase(matmul, rows, linear, dtype))),
    ),
    ...DTYPES.flatMap((dtype) =>
      fewRows.flatMap((rows) => linears(channels).map((linear) => productCase(matvec, rows, linear, dtype))),
    ),
    ...DTYPES.flatMap((dtype) =>
      MATVEC_FORMS.map((form) => productCase(matvec, fewRows[0], linears(channels)[0]!, dtype, form)),
    ),
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

/** One of a block's four products: x [rows, K] · w [K, N], and what follows. */
interface Linear {
  readonly name: string;
  readonly K: number;
  readonly N: number;
  readonly epilogue?: "gelu" | "residual";
}

function linears(C: number): Linear[] {
  return [
    { name: "c_attn", K: C, N: 3 * C },
    { name: "attn.c_proj", K: C, N: C, epilogue: "residual" },
    { name: "c_fc", K: C, N: 4 * C, epilogue: "gelu" },
    { name: "mlp.c_proj", K: 4 * C, N: C, epilogue: "residual" },
  ];
}

/** Values for matvec's constants that its op does not choose here. At most 256 threads, which every adapter allows. */
const MATVEC_FORMS = [
  { COLUMNS: 2, SPLIT: 32 },
  { COLUMNS: 4, SPLIT: 32 },
  { COLUMNS: 4, SPLIT: 64 },
  { COLUMNS: 8, SPLIT: 32 },
  { COLUMNS: 16, SPLIT: 16 },
];

/** A product with bias, by the op, or with constants of our own in its place. */
export function productCase(
  op: typeof matmul | typeof matvec,
  rows: number,
  { name, K, N, epilogue }: Linear,
  dtype: Storage,
  form?: (typeof MATVEC_FORMS)[number],
): ShaderCase {
  const constants = form ? Object.entries(form).map(([constant, value]) => `${constant} ${value}`) : [];
  return {
    kernel: op.name,
    variant: [NAMES[dtype], ...(epilogue ? [epilogue] : []), ...constants].join(", "),
    shape: `${name} ${rows}×${K}×${N}`,
    readBytes: rows * K * 4 + matrixBytes(K, N, dtype) + N * 4 + (epilogue === "residual" ? rows * N * 4 : 0),
    writeBytes: rows * N * 4,
    flops: 2 * rows * K * N,
    tolerance: toleranceOf("product", dtype, K),
    prepare(inputs) {
      const x = inputs.random([rows, K]);
      const { weight, bias, at } = inputs.randomLinear(K, N, dtype);
      const residual = epilogue === "residual" ? inputs.random([rows, N]) : undefined;
      const after = residual ? { residual: residual.tensor } : epilogue === "gelu" ? "gelu-tanh" : undefined;
      const factors = { x: x.at, ...at, residual: residual?.at };
      return {
        run: () => [form ? matvecAs(form, x.tensor, weight, bias, after) : op(x.tensor, weight, bias, after)],
        expected: [productOf(factors, K, N, epilogue === "gelu")],
      };
    },
  };
}

/** Bytes of a matrix, and of a scale for each of so many channels where it is bytes. */
function matrixBytes(rows: number, cols: number, dtype: Storage, channels = cols): number {
  return rows * cols * ELEMENT_BYTES[dtype] + (dtype === "i8" ? 4 * channels : 0);
}

const matvecKernel = new Kernel("matvec");

/** matvec with other constants than its op takes. */
function matvecAs(form: (typeof MATVEC_FORMS)[number], ...operands: Parameters<typeof matvec>): Tensor {
  const [x, w, bias, epilogue] = operands;
  const { y, buffers, parts, constants } = productArguments("matvec", x, w, bias, epilogue);
  const shares = sharesForm(x.cols, constants.N_QUADS, form.COLUMNS, form.SPLIT);
  matvecKernel.run(x.gpu, buffers, {}, [shares.workgroups, x.rows], {
    parts: [...parts, shares.part],
    constants: { ...constants, ...shares.constants },
  });
  return y;
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
