// Part: what flash-attention-subgroup-matrix.wgsl does with the scores of a tile, which lie in flash-matrices.wgsl's memory. `share`
// neighbouring threads have a row, an oct of positions at a time. A row sees the positions before `visible`.

const LOWEST = -3.4028234e38;

// Which of four positions from `position` on are before `end`.
fn is_seen(position: u32, end: u32) -> vec4<bool> {
  return position + vec4u(0u, 1u, 2u, 3u) < vec4u(end);
}

// The largest score of a row that it sees. Every thread calls.
fn largest_score(row: u32, share: u32, thread: u32, first: u32, visible: u32, few: bool) -> f32 {
  var largest = LOWEST;
  for (var oct = thread % share; oct < OCTS; oct += share) {
    for (var i = 0u; i < 2u; i++) {
      let score = scores[row * SCORE_STRIDE + 2u * oct + i];
      let masked = select(vec4f(LOWEST), score, is_seen(first + 8u * oct + 4u * i, visible));
      largest = max(largest, max(max(masked.x, masked.y), max(masked.z, masked.w)));
    }
  }
  largest = max(largest, subgroupShuffleXor(largest, 1u));
  if (few) { // eight threads share a row, not two
    largest = max(largest, subgroupShuffleXor(largest, 2u));
    largest = max(largest, subgroupShuffleXor(largest, 4u));
  }
  return largest;
}

// The weights of a row, 2 to the power of how far a score is above the reference, rounded; zero for what it does not see.
fn write_weights(row: u32, share: u32, thread: u32, first: u32, visible: u32, scale: f32, reference: f32) {
  for (var oct = thread % share; oct < OCTS; oct += share) {
    let score0 = scores[row * SCORE_STRIDE + 2u * oct];
    let score1 = scores[row * SCORE_STRIDE + 2u * oct + 1u];
    let position = first + 8u * oct;
    let weights0 = select(vec4f(), exp2(fma(score0, vec4f(scale), vec4f(-reference))), is_seen(position, visible));
    let weights1 = select(vec4f(), exp2(fma(score1, vec4f(scale), vec4f(-reference))), is_seen(position + 4u, visible));
    weights[row * STRIDE + oct] = vec4u(pack4(weights0), pack4(weights1));
  }
}
