// Weights as signed bytes with one scale for each output channel: symmetric "absmax" quantization, as in Krishnamoorthi,
// Quantizing deep convolutional networks for efficient inference (2018, per-channel weights) and Dettmers et al., LLM.int8()
// (2022, section 2.1):
//
//   scale = max |w| over the channel,   q = round(127 · w / scale),   w ≈ q / 127 · scale
//
// q lies in -127 … 127; storage-i8.wgsl widens it, and kernels multiply a finished sum by scale / 127. Zero stays zero, and
// the error is at most half a step: |w - q / 127 · scale| ≤ scale / 254.

/** The largest q. */
const LEVELS = 127;

/** What a channel is: a row of a table, or a column of a matrix [K, N]. */
export type Channel = "row" | "column";

/**
 * Raise the scales of channels to the largest magnitude in `values`, rows of `cols` floats. `scales` has one for each row of
 * `values`, or one for each column. A value that is not finite makes the scale so, and with it every result of its
 * channel, which is what it would do in f32.
 */
export function raiseScales(
  values: Float32Array,
  cols: number,
  channel: Channel,
  scales: Float32Array,
): void {
  for (let first = 0, row = 0; first < values.length; first += cols, row++)
    for (let c = 0; c < cols; c++) {
      const at = channel === "row" ? row : c;
      scales[at] = Math.max(scales[at]!, Math.abs(values[first + c]!));
    }
}

/** Rows of `cols` floats as bytes, with the scales of their rows or of their columns. Halves are rounded away from zero. */
export function quantize(
  values: Float32Array,
  cols: number,
  channel: Channel,
  scales: Float32Array,
): Int8Array {
  const bytes = new Int8Array(values.length);
  const factors = Float64Array.from(scales, (scale) => LEVELS / scale);
  for (let first = 0, row = 0; first < values.length; first += cols, row++)
    for (let c = 0; c < cols; c++) {
      const q = values[first + c]! * factors[channel === "row" ? row : c]!;
      // A scale that is zero or not finite gives NaN, which an Int8Array stores as 0.
      bytes[first + c] = q < 0 ? -Math.round(-q) : Math.round(q);
    }
  return bytes;
}

/** What bytes stand for, as a kernel computes it, but in float64: q / 127 · scale. */
export function dequantize(
  bytes: Int8Array,
  cols: number,
  channel: Channel,
  scales: Float32Array,
): Float64Array {
  return Float64Array.from(
    bytes,
    (q, i) => (q / LEVELS) * scales[channel === "row" ? Math.floor(i / cols) : i % cols]!,
  );
}
