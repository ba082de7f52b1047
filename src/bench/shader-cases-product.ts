import { Kernel } from "../gpu/kernel.ts";
import { MATMUL_TIERS, type MatmulTier, matmul, productArguments } from "../ops/matmul.ts";
import { hasMatrixUnits } from "../ops/matrix-form.ts";
import { matvec } from "../ops/matvec.ts";
import { type Epilogue, sharesForm } from "../ops/product.ts";
import { ELEMENT_BYTES, type Tensor } from "../tensor.ts";
import type { BenchShape, ShaderCase } from "./shader-case.ts";
import { toleranceOf } from "./shader-check.ts";
import type { Storage } from "./shader-inputs.ts";
import { productOf } from "./shader-reference.ts";

// Cases of x · w + bias: the forms that the ops choose, others of matvec, and the rungs of matmul's ladder.

export const DTYPES: readonly Storage[] = ["f32", "f16", "i8"];

/** As --dtype says it. */
export const NAMES: Record<Storage, string> = { f32: "f32", f16: "f16", i8: "int8" };

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

/** A block's products for one row and for many, by the ops; and by matvec with other constants. */
export function productCases({ channels, fewRows, manyRows }: BenchShape): ShaderCase[] {
  const all = (op: typeof matmul | typeof matvec, counts: readonly number[]) =>
    DTYPES.flatMap((dtype) =>
      counts.flatMap((rows) => linears(channels).map((linear) => productCase(op, rows, linear, dtype))),
    );
  const [first] = linears(channels);
  return [
    ...all(matmul, manyRows),
    ...all(matvec, fewRows),
    ...DTYPES.flatMap((dtype) =>
      MATVEC_FORMS.map((form) => productCase(matvec, fewRows[0], first!, dtype, matvecWay(form))),
    ),
  ];
}

/**
 * Every rung of matmul's ladder: a block's products, one of them with every storage of weights, and a square product, where
 * arithmetic decides.
 */
export function ladderCases({ channels, ladder }: BenchShape): ShaderCase[] {
  const products = linears(channels);
  const square: Linear = { name: "square", K: ladder.square, N: ladder.square };
  return MATMUL_TIERS.flatMap((tier) => {
    const way = tierWay(tier);
    const [first, ...others] = DTYPES.filter((dtype) => tier !== "matrix" || dtype === "f16");
    return [
      ...products.map((linear) => productCase(matmul, ladder.rows, linear, first!, way)),
      ...others.map((dtype) => productCase(matmul, ladder.rows, products[0]!, dtype, way)),
      productCase(matmul, ladder.square, square, first!, {
        ...way,
        // A CPU would take minutes.
        suits: (gpu) => (way.suits?.(gpu) ?? true) && (!gpu.info.software || ladder.square <= MOST_ON_CPU),
      }),
    ];
  });
}

const MOST_ON_CPU = 512;

function tierWay(tier: MatmulTier): Way {
  const run: Way["run"] = (x, w, bias, epilogue) => matmul(x, w, bias, epilogue, { tier });
  if (tier !== "matrix") return { before: [tier], run };
  return {
    before: [tier],
    run,
    // Tensor cores take halves, so the reference starts from halves too. They cut off what other units round.
    x: "f16",
    tolerance: (K) => ({ nmse: 1e-9, maxAbs: 20 * toleranceOf("product", "f16", K).maxAbs }),
    suits: hasMatrixUnits,
  };
}

/** Values for matvec's constants that its op does not choose here. At most 256 threads, which every adapter allows. */
const MATVEC_FORMS = [
  { COLUMNS: 2, SPLIT: 32 },
  { COLUMNS: 4, SPLIT: 32 },
  { COLUMNS: 4, SPLIT: 64 },
  { COLUMNS: 8, SPLIT: 32 },
  { COLUMNS: 16, SPLIT: 16 },
];

/** A product with bias, by the op, or in another way. */
export function productCase(
  op: typeof matmul | typeof matvec,
  rows: number,
  { name, K, N, epilogue }: Linear,
  dtype: Storage,
  way: Way = { run: op },
): ShaderCase {
  const x = way.x ?? "f32";
  return {
    kernel: op.name,
    variant: [
      ...(way.before ?? []),
      NAMES[dtype],
      ...(epilogue ? [epilogue] : []),
      ...(way.behind ?? []),
    ].join(", "),
    shape: `${name} ${rows}×${K}×${N}`,
    suits: way.suits,
    readBytes:
      rows * K * ELEMENT_BYTES[x] +
      matrixBytes(K, N, dtype) +
      N * 4 +
      (epilogue === "residual" ? rows * N * 4 : 0),
    writeBytes: rows * N * 4,
    flops: 2 * rows * K * N,
    tolerance: way.tolerance?.(K) ?? toleranceOf("product", dtype, K),
    prepare(inputs) {
      const left = inputs.random([rows, K], x);
      const { weight, bias, at } = inputs.randomLinear(K, N, dtype);
      const residual = epilogue === "residual" ? inputs.random([rows, N]) : undefined;
      const after = residual ? { residual: residual.tensor } : epilogue === "gelu" ? "gelu-tanh" : undefined;
      const factors = { x: left.at, ...at, residual: residual?.at };
      return {
        run: () => [way.run(left.tensor, weight, bias, after)],
        expected: [productOf(factors, K, N, epilogue === "gelu")],
      };
    },
  };
}

/** A way to compute a product that is not the op's own choice. */
interface Way {
  run(x: Tensor, w: Tensor, bias: Tensor, epilogue?: Epilogue): Tensor;
  /** Words of the variant, before and behind the weights' storage. */
  readonly before?: readonly string[];
  readonly behind?: readonly string[];
  /** How x is stored, f32 if not given. */
  readonly x?: "f16";
  /** Of a product of depth K. */
  readonly tolerance?: (K: number) => ShaderCase["tolerance"];
  readonly suits?: ShaderCase["suits"];
}

/** Bytes of a matrix, and of a scale for each of so many channels where it is bytes. */
export function matrixBytes(rows: number, cols: number, dtype: Storage, channels = cols): number {
  return rows * cols * ELEMENT_BYTES[dtype] + (dtype === "i8" ? 4 * channels : 0);
}

const matvecKernel = new Kernel("matvec");

/** matvec with other constants than its op takes. */
function matvecWay(form: (typeof MATVEC_FORMS)[number]): Way {
  const behind = Object.entries(form).map(([constant, value]) => `${constant} ${value}`);
  return { behind, run: (...operands) => matvecAs(form, ...operands) };
}

function matvecAs(form: (typeof MATVEC_FORMS)[number], ...operands: Parameters<Way["run"]>): Tensor {
  const [x, w, bias, epilogue] = operands;
  const { y, buffers, parts, constants } = productArguments("matvec", x, w, bias, epilogue);
  const shares = sharesForm(x.cols, constants.N_QUADS, form.COLUMNS, form.SPLIT);
  matvecKernel.run(x.gpu, buffers, {}, [shares.workgroups, x.rows], {
    parts: [...parts, shares.part],
    constants: { ...constants, ...shares.constants },
  });
  return y;
}
