// Part: random numbers by counter, the words that src/generate/random.ts gives.
//
// Philox-4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

const PHILOX_ROUNDS = 10u;

// The high 32 bits of a · b, from 16-bit halves: WGSL has no wider product. No sum below reaches 2^32.
fn multiply_high(a: u32, b: u32) -> u32 {
  let a_low = a & 0xffffu;
  let a_high = a >> 16u;
  let b_low = b & 0xffffu;
  let b_high = b >> 16u;
  let middle = a_high * b_low + ((a_low * b_low) >> 16u);
  let carry = a_low * b_high + (middle & 0xffffu);
  return a_high * b_high + (middle >> 16u) + (carry >> 16u);
}

// Four random words from four counter words and two key words.
fn philox4x32(counter: vec4u, key: vec2u) -> vec4u {
  var c = counter;
  var k = key;
  for (var round = 0u; round < PHILOX_ROUNDS; round++) {
    // The paper's multipliers, and below its Weyl sequence (golden ratio, square root of 3 minus 1).
    let high_0 = multiply_high(0xd2511f53u, c.x);
    let high_1 = multiply_high(0xcd9e8d57u, c.z);
    c = vec4u(high_1 ^ c.y ^ k.x, 0xcd9e8d57u * c.z, high_0 ^ c.w ^ k.y, 0xd2511f53u * c.x);
    k += vec2u(0x9e3779b9u, 0xbb67ae85u);
  }
  return c;
}

// A number in [0, 1) with 24 bits, exact in f32: counter (step, sequence, 0, 0), key the seed's words, low one first.
fn uniform_random(seed: vec2u, sequence: u32, step: u32) -> f32 {
  return f32(philox4x32(vec4u(step, sequence, 0u, 0u), seed).x >> 8u) / 16777216.0;
}
