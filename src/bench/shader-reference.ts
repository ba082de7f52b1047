import type { GeluForm } from "../ops/gelu.ts";
import type { Values } from "./shader-inputs.ts";

// Every op in float64, one element at a time: a check looks at a sample of a large result, and computes no more than
// that. What a whole row has in common (its mean, its sum) is computed once.

/** x [rows, K] · w [K, N] + bias [N], then GELU in its tanh form or a residual [rows, N]. */
export function productOf(
  { x, w, bias, residual }: { x: Values; w: Values; bias?: Values; residual?: Values },
  K: number,
  N: number,
  gelu = false,
): Values {
  return (index) => {
    const row = Math.floor(index / N);
    const n = index % N;
    let sum = (bias?.(n) ?? 0) + (residual?.(index) ?? 0);
    for (let k = 0; k < K; k++) sum += x(row * K + k) * w(k * N + n);
    return gelu ? geluTanh(sum) : sum;
  };
}

/** x [rows, K] · wᵀ, w [N, K]. */
export function transposedProductOf(x: Values, w: Values, K: number, N: number): Values {
  return productOf({ x, w: (index) => w((index % N) * K + Math.floor(index / N)) }, K, N);
}

function geluTanh(x: number): number {
  return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}

/**
 * erf by its series of positive terms, 2/√π · e^(−x²) · Σ 2ⁿ x²ⁿ⁺¹ / (1 · 3 · … · (2n+1)) (Abramowitz and Stegun 7.1.6).
 */
function erf(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

export function geluOf(x: Values, form: GeluForm): Values {
  return (index) => {
    const value = x(index);
    return form === "gelu-tanh" ? geluTanh(value) : 0.5 * value * (1 + erf(value / Math.SQRT2));
  };
}

/** Layer normalisation of the rows of x [rows, C]. */
export function layernormOf(x: Values, weight: Values, bias: Values, C: number, epsilon: number): Values {
  const moments = perRow((row) => {
    let mean = 0;
    for (let c = 0; c < C; c++) mean += x(row * C + c) / C;
    let variance = 0;
    for (let c = 0; c < C; c++) variance += (x(row * C + c) - mean) ** 2 / C;
    return { mean, scale: 1 / Math.sqrt(variance + epsilon) };
  });
  return (index) => {
    const c = index % C;
    const { mean, scale } = moments(Math.floor(index / C));
    return (x(index) - mean) * scale * weight(c) + bias(c);
  };
}

/** Softmax of the rows of x [rows, cols]. */
export function softmaxOf(x: Values, cols: number): Values {
  const parts = perRow((row) => {
    let largest = Number.NEGATIVE_INFINITY;
    for (let c = 0; c < cols; c++) largest = Math.max(largest, x(row * cols + c));
    let sum = 0;
    for (let c = 0; c < cols; c++) sum += Math.exp(x(row * cols + c) - largest);
    return { largest, sum };
  });
  return (index) => {
    const { largest, sum } = parts(Math.floor(index / cols));
    return Math.exp(x(index) - largest) / sum;
  };
}

/** Column of the largest element of each row of x [rows, cols], the lowest on ties. */
export function argmaxOf(x: Values, cols: number): Values {
  return (row) => {
    let best = 0;
    for (let c = 1; c < cols; c++) if (x(row * cols + c) > x(row * cols + best)) best = c;
    return best;
  };
}

/** What attention needs to know of a batch; slot(row, position) is where a position of the row's sequence lies. */
export interface AttentionReference {
  /** [T, 3 · H · D] */
  readonly qkv: Values;
  /** [slots, H, D] */
  readonly k: Values;
  readonly v: Values;
  readonly heads: number;
  readonly headSize: number;
  readonly scale: number;
  /** How many positions a row sees. */
  readonly visible: (row: number) => number;
  readonly slot: (row: number, position: number) => number;
}

/** Attention of each row over the positions that it sees: [T, H · D]. */
export function attentionOf(reference: AttentionReference): Values {
  const { qkv, k, v, heads, headSize, scale, visible, slot } = reference;
  const C = heads * headSize;
  const at = (row: number, position: number, channel: number) => slot(row, position) * C + channel;
  return (index) => {
    const row = Math.floor(index / C);
    const channel = index % C;
    const first = channel - (channel % headSize);
    const score: Values = (position) => {
      let dot = 0;
      for (let c = first; c < first + headSize; c++) dot += qkv(row * 3 * C + c) * k(at(row, position, c));
      return scale * dot;
    };
    const scores = Array.from({ length: visible(row) }, (_, position) => score(position));
    const weight = softmaxOf((position) => scores[position]!, scores.length);
    return scores.reduce((sum, _, position) => sum + weight(position) * v(at(row, position, channel)), 0);
  };
}

/** What decode attention needs to know; slot(sequence, position) is where a position lies. */
export interface DecodeReference
  extends Pick<AttentionReference, "k" | "v" | "heads" | "headSize" | "scale" | "slot"> {
  /** [S, H · D] */
  readonly q: Values;
  /** Tokens of each sequence. */
  readonly context: number;
  /** Positions of a chunk. */
  readonly chunk: number;
}

/** [S, H, chunks, D + 4]: of each chunk the weighted values, the largest score, the sum of weights and two zeros. */
export function partialsOf(reference: DecodeReference): Values {
  const { q, k, v, heads, headSize, scale, context, chunk, slot } = reference;
  const C = heads * headSize;
  const chunks = Math.ceil(context / chunk);
  const width = headSize + 4;
  const chunkOf = perRow((row) => {
    const sequence = Math.floor(row / chunks / heads);
    const first = (Math.floor(row / chunks) % heads) * headSize; // channel
    const begin = (row % chunks) * chunk;
    const length = Math.min(chunk, context - begin);
    const places = Array.from({ length }, (_, i) => slot(sequence, begin + i) * C + first);
    const scores = places.map((place) => {
      let dot = 0;
      for (let c = 0; c < headSize; c++) dot += q(sequence * C + first + c) * k(place + c);
      return scale * dot;
    });
    const largest = Math.max(...scores);
    const weights = scores.map((score) => Math.exp(score - largest));
    return { places, weights, behind: [largest, weights.reduce((a, b) => a + b), 0, 0] };
  });
  return (index) => {
    const channel = index % width;
    const { places, weights, behind } = chunkOf(Math.floor(index / width));
    if (channel >= headSize) return behind[channel - headSize]!;
    return weights.reduce((sum, weight, i) => sum + weight * v(places[i]! + channel), 0);
  };
}

/** The chunks of partial results [S, H, chunks, D + 4], all of them in use, merged to [S, H · D]. */
export function mergedOf(partials: Values, headSize: number, chunks: number): Values {
  const width = headSize + 4;
  const weightsOf = perRow((head) => {
    const behind = (word: number) =>
      Array.from({ length: chunks }, (_, i) => partials((head * chunks + i) * width + headSize + word));
    const [maxima, sums] = [behind(0), behind(1)];
    const largest = Math.max(...maxima);
    const weights = maxima.map((maximum) => Math.exp(maximum - largest));
    const total = weights.reduce((sum, weight, i) => sum + weight * sums[i]!, 0);
    return weights.map((weight) => weight / total);
  });
  return (index) => {
    const head = Math.floor(index / headSize); // of all sequences, as rows of [S, H · D] are
    const channel = index % headSize;
    return weightsOf(head).reduce(
      (sum, weight, i) => sum + weight * partials((head * chunks + i) * width + channel),
      0,
    );
  };
}

/** What `compute` gives for a row, computed once. */
function perRow<T>(compute: (row: number) => T): (row: number) => T {
  const known = new Map<number, T>();
  return (row) => {
    const value = known.get(row) ?? compute(row);
    known.set(row, value);
    return value;
  };
}
