// Every op in plain float64 loops: what the kernels are compared with. Row-major, without padding; where a number of rows
// or columns follows from the lengths, it is taken from there.

export type Numbers = ArrayLike<number>;

/** Results, and for each the sum of the magnitudes of its terms, which bounds what rounding can do to it. */
export interface Sums {
  readonly values: Float64Array;
  readonly magnitudes: Float64Array;
  /** How many terms each sum has. */
  readonly terms: number;
}

/** wte[ids[t]] + wpe[positions[t]], [T, columns]. */
export function embedding(
  ids: Numbers,
  positions: Numbers,
  wte: Numbers,
  wpe: Numbers,
  columns: number,
): Float64Array {
  const y = new Float64Array(ids.length * columns);
  for (let t = 0; t < ids.length; t++)
    for (let c = 0; c < columns; c++)
      y[t * columns + c] = wte[ids[t]! * columns + c]! + wpe[positions[t]! * columns + c]!;
  return y;
}

/** a + b. */
export function add(a: Numbers, b: Numbers): Float64Array {
  return Float64Array.from({ length: a.length }, (_, i) => a[i]! + b[i]!);
}

/** Each row of x [rows, C] to mean 0 and variance 1, times weight [C], plus bias [C]. */
export function layernorm(x: Numbers, weight: Numbers, bias: Numbers, epsilon: number): Float64Array {
  const columns = weight.length;
  const y = new Float64Array(x.length);
  for (let first = 0; first < x.length; first += columns) {
    let mean = 0;
    for (let c = 0; c < columns; c++) mean += x[first + c]! / columns;
    let variance = 0;
    for (let c = 0; c < columns; c++) variance += (x[first + c]! - mean) ** 2 / columns;
    const scale = 1 / Math.sqrt(variance + epsilon);
    for (let c = 0; c < columns; c++) y[first + c] = (x[first + c]! - mean) * scale * weight[c]! + bias[c]!;
  }
  return y;
}

/** Softmax of each row of x [rows, columns]. */
export function softmax(x: Numbers, columns: number): Float64Array {
  const y = new Float64Array(x.length);
  for (let first = 0; first < x.length; first += columns) {
    let largest = Number.NEGATIVE_INFINITY;
    for (let c = 0; c < columns; c++) largest = Math.max(largest, x[first + c]!);
    let sum = 0;
    for (let c = 0; c < columns; c++) sum += Math.exp(x[first + c]! - largest);
    for (let c = 0; c < columns; c++) y[first + c] = Math.exp(x[first + c]! - largest) / sum;
  }
  return y;
}

/** Column of the largest element of each row of x [rows, columns], the lowest on ties; NaN never, 0 for a row of NaN. */
export function argmax(x: Numbers, columns: number): number[] {
  const best: number[] = [];
  for (let first = 0; first < x.length; first += columns) {
    let index = -1;
    for (let c = 0; c < columns; c++)
      if (!Number.isNaN(x[first + c]) && (index < 0 || x[first + c]! > x[first + index]!)) index = c;
    best.push(Math.max(index, 0));
  }
  return best;
}

/** Rows of x [T, columns] by their numbers. */
export function gatherRows(x: Numbers, rows: Numbers, columns: number): Float64Array {
  return Float64Array.from(
    { length: rows.length * columns },
    (_, i) => x[rows[Math.floor(i / columns)]! * columns + (i % columns)]!,
  );
}

/**
 * erf to 1e-15. Up to 3 the series 2/√π · e^(−x²) · Σ 2ⁿ x²ⁿ⁺¹ / (2n+1)!!, whose terms have one sign (Abramowitz and
 * Stegun 7.1.6); further out one minus the continued fraction of erfc (7.1.14), from the inside out.
 */
export function erf(x: number): number {
  return Math.abs(x) < 3 ? erfSeries(x) : Math.sign(x) * (1 - erfcFraction(Math.abs(x)));
}

/** 1 − erf(x), without the cancellation for large x. */
export function erfc(x: number): number {
  return x < 3 ? 1 - erf(x) : erfcFraction(x);
}

function erfSeries(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** erfc(x) = e^(−x²)/√π · 1/(x + (1/2)/(x + 1/(x + (3/2)/(x + …)))), for x ≥ 3. */
function erfcFraction(x: number): number {
  let tail = x;
  for (let n = 100; n > 0; n--) tail = x + n / 2 / tail;
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / tail;
}

export function geluTanh(x: number): number {
  return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}

export function geluErf(x: number): number {
  return 0.5 * x * erfc(-x / Math.SQRT2);
}

/** What happens to a product before it is stored; a residual is [rows, N]. */
export type Epilogue = undefined | "gelu-tanh" | "gelu-erf" | { readonly residual: Numbers };

/** x [rows, K] · w [K, N] + bias [N], then the epilogue. The magnitudes are those before a GELU. */
export function matmul(x: Numbers, w: Numbers, bias: Numbers, epilogue?: Epilogue): Sums {
  const N = bias.length;
  const K = w.length / N;
  const residual = typeof epilogue === "object" ? epilogue.residual : undefined;
  const values = new Float64Array((x.length / K) * N);
  const magnitudes = new Float64Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const row = Math.floor(i / N);
    const n = i % N;
    let sum = bias[n]! + (residual?.[i] ?? 0);
    let magnitude = Math.abs(bias[n]!) + Math.abs(residual?.[i] ?? 0);
    for (let k = 0; k < K; k++) {
      const term = x[row * K + k]! * w[k * N + n]!;
      sum += term;
      magnitude += Math.abs(term);
    }
    values[i] = epilogue === "gelu-tanh" ? geluTanh(sum) : epilogue === "gelu-erf" ? geluErf(sum) : sum;
    magnitudes[i] = magnitude;
  }
  return { values, magnitudes, terms: K + (residual ? 2 : 1) };
}

/** x [rows, K] · wᵀ, w [N, K]: [rows, N]. */
export function matmulTransposed(x: Numbers, w: Numbers, K: number): Sums {
  const N = w.length / K;
  const values = new Float64Array((x.length / K) * N);
  const magnitudes = new Float64Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const row = Math.floor(i / N);
    const n = i % N;
    for (let k = 0; k < K; k++) {
      const term = x[row * K + k]! * w[n * K + k]!;
      values[i]! += term;
      magnitudes[i]! += Math.abs(term);
    }
  }
  return { values, magnitudes, terms: K };
}

/** Copy the keys and values of qkv [T, 3 · C] into slots of k and v [slots, C], in place. */
export function kvWrite(qkv: Numbers, slots: Numbers, k: number[], v: number[]): void {
  const C = qkv.length / slots.length / 3;
  for (let t = 0; t < slots.length; t++)
    for (let c = 0; c < C; c++) {
      k[slots[t]! * C + c] = qkv[t * 3 * C + C + c]!;
      v[slots[t]! * C + c] = qkv[t * 3 * C + 2 * C + c]!;
    }
}

/** One sequence of a ragged batch, its keys and values by position: [length, H · D]. Its last `fresh` tokens are new. */
export interface Context {
  readonly length: number;
  readonly fresh: number;
  readonly keys: Numbers;
  readonly values: Numbers;
}

/**
 * Causal attention of the queries in qkv [T, 3 · H · D]: the new tokens of all sequences, one sequence after the other.
 * The new token at position p sees the positions 0 … p of its own sequence. [T, H · D].
 */
export function attention(
  qkv: Numbers,
  sequences: readonly Context[],
  heads: number,
  headSize: number,
  scale: number,
): Float64Array {
  const C = heads * headSize;
  const y = new Float64Array(qkv.length / 3);
  let row = 0;
  for (const { length, fresh, keys, values } of sequences)
    for (let position = length - fresh; position < length; position++, row++)
      for (let h = 0; h < heads; h++) {
        const scores: number[] = [];
        for (let j = 0; j <= position; j++) {
          let dot = 0;
          for (let d = h * headSize; d < (h + 1) * headSize; d++)
            dot += qkv[row * 3 * C + d]! * keys[j * C + d]!;
          scores.push(scale * dot);
        }
        const weights = softmax(scores, scores.length);
        for (let d = h * headSize; d < (h + 1) * headSize; d++)
          for (let j = 0; j <= position; j++) y[row * C + d]! += weights[j]! * values[j * C + d]!;
      }
  return y;
}

/**
 * Attention [S, H · D] out of partial results [S, H, chunks, D + 4] of chunks of 128 positions: D values, the maximum that they
 * are relative to, their sum of weights, and two zeros. Of each sequence, the chunks of its context.
 */
export function mergeAttention(
  partials: Numbers,
  contextLens: readonly number[],
  heads: number,
  headSize: number,
): Float64Array {
  const width = headSize + 4;
  const chunks = partials.length / contextLens.length / heads / width;
  const y = new Float64Array(contextLens.length * heads * headSize);
  contextLens.forEach((length, s) => {
    for (let h = 0; h < heads; h++) {
      const row = s * heads + h;
      const starts = Array.from({ length: Math.ceil(length / 128) }, (_, c) => (row * chunks + c) * width);
      const largest = Math.max(...starts.map((at) => partials[at + headSize]!));
      const weights = starts.map((at) => Math.exp(partials[at + headSize]! - largest));
      const sum = starts.reduce((total, at, c) => total + weights[c]! * partials[at + headSize + 1]!, 0);
      for (let d = 0; d < headSize; d++)
        starts.forEach((at, c) => {
          y[row * headSize + d]! += (weights[c]! * partials[at + d]!) / sum;
        });
    }
  });
  return y;
}
