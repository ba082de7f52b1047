// Part: what flash-attention-subgroup-matrix.wgsl does with the scores of a tile, which lie in flash-matrices.wgsl's memory.
//
// Neighbouring threads share a row: two of them, or eight where rows are few. Each takes its scores into registers, agrees with
// the others on the largest, and leaves weights behind: 2 to the power of how far a score is above the row's reference, rounded;
// zero for positions from `visible` on, which the row does not see. The reference is the row's largest score so far, or one that
// was and is at most RISE below it. A thread has whole octs, every second or every eighth.

const LOWEST = -3.4028234e38;
const RISE = 8.0; // weights are at most 2^8 then, which a half holds, and a sum of 2^20 of them a float

// Four scores of positions from `position` on.
fn seen_scores(row: u32, quad: u32, first: u32, visible: u32, scale: f32) -> vec4f {
  let positions = first + 4u * quad + vec4u(0u, 1u, 2u, 3u);
  return select(vec4f(LOWEST), scores[row * SCORE_STRIDE + quad] * scale, positions < vec4u(visible));
}

fn largest_of(a: vec4f, b: vec4f) -> f32 {
  let pairs = max(a, b);
  return max(max(pairs.x, pairs.y), max(pairs.z, pairs.w));
}

// What is not seen is so far below any reference that its weight is zero.
fn store_weights(row: u32, oct: u32, a: vec4f, b: vec4f, reference: f32) {
  weights[row * STRIDE + oct] = vec4u(pack4(exp2(a - reference)), pack4(exp2(b - reference)));
}

// The weights of a row by its thread `part` of two. Every thread calls, and gets the row's reference.
fn weigh_many(row: u32, part: u32, first: u32, visible: u32, scale: f32, before: f32) -> f32 {
  let quad = 2u * part;
  let s0 = seen_scores(row, quad, first, visible, scale);
  let s1 = seen_scores(row, quad + 1u, first, visible, scale);
  let s2 = seen_scores(row, quad + 4u, first, visible, scale);
  let s3 = seen_scores(row, quad + 5u, first, visible, scale);
  let s4 = seen_scores(row, quad + 8u, first, visible, scale);
  let s5 = seen_scores(row, quad + 9u, first, visible, scale);
  let s6 = seen_scores(row, quad + 12u, first, visible, scale);
  let s7 = seen_scores(row, quad + 13u, first, visible, scale);
  let own = max(max(largest_of(s0, s1), largest_of(s2, s3)), max(largest_of(s4, s5), largest_of(s6, s7)));
  let largest = max(own, subgroupShuffleXor(own, 1u));
  let reference = select(before, largest, largest > before + RISE);
  store_weights(row, part, s0, s1, reference);
  store_weights(row, part + 2u, s2, s3, reference);
  store_weights(row, part + 4u, s4, s5, reference);
  store_weights(row, part + 6u, s6, s7, reference);
  return reference;
}

// The same by its thread `part` of eight.
fn weigh_few(row: u32, part: u32, first: u32, visible: u32, scale: f32, before: f32) -> f32 {
  let s0 = seen_scores(row, 2u * part, first, visible, scale);
  let s1 = seen_scores(row, 2u * part + 1u, first, visible, scale);
  var largest = largest_of(s0, s1);
  largest = max(largest, subgroupShuffleXor(largest, 1u));
  largest = max(largest, subgroupShuffleXor(largest, 2u));
  largest = max(largest, subgroupShuffleXor(largest, 4u));
  let reference = select(before, largest, largest > before + RISE);
  store_weights(row, part, s0, s1, reference);
  return reference;
}
