// Half precision (IEEE 754 binary16) and bfloat16, as bits. Node 20 has no Float16Array.

const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);

/** The half nearest to a float, ties to even, as 16 bits. Past 65,504 it is infinity; NaN stays NaN. */
export function halfBits(value: number): number {
  float[0] = value;
  const sign = (word[0]! >>> 16) & 0x8000;
  const magnitude = word[0]! & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Below 2^-14 halves are multiples of 2^-24, which is one unit of a float just above 0.5: the addition rounds.
    float[0] = Math.abs(value) + 0.5;
    return sign | (word[0]! - 0x3f000000);
  }
  // Rebias the exponent from 127 to 15 and drop 13 bits; the sum rounds, and carries into the exponent where it must.
  return sign | ((magnitude + 0xfff + ((magnitude >>> 13) & 1) - 0x38000000) >>> 13);
}

/** The float with the value of a half. Exact. */
export function halfToFloat(bits: number): number {
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  const magnitude =
    exponent === 0
      ? fraction * 2 ** -24
      : exponent === 31
        ? fraction === 0
          ? Number.POSITIVE_INFINITY
          : Number.NaN
        : (1 + fraction / 1024) * 2 ** (exponent - 15);
  return bits & 0x8000 ? -magnitude : magnitude;
}

let halves: Float32Array | undefined;

/** Halves as floats. Exact. */
export function widenHalf(source: Uint16Array): Float32Array {
  halves ??= Float32Array.from({ length: 65536 }, (_, bits) => halfToFloat(bits));
  const target = new Float32Array(source.length);
  for (let i = 0; i < source.length; i++) target[i] = halves[source[i]!]!;
  return target;
}

/** bfloat16 as floats: the upper half of a float's bits. Exact. */
export function widenBfloat(source: Uint16Array): Float32Array {
  const target = new Uint32Array(source.length);
  for (let i = 0; i < source.length; i++) target[i] = source[i]! << 16;
  return new Float32Array(target.buffer);
}

/** Floats as the nearest halves. */
export function narrowToHalf(source: Float32Array): Uint16Array {
  const target = new Uint16Array(source.length);
  for (let i = 0; i < source.length; i++) target[i] = halfBits(source[i]!);
  return target;
}
