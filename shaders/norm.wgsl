// Part: mean and deviation of a row, for every thread of its workgroup (Ba, Kiros and Hinton, 2016).
//
// NORM_LANES threads sum every NORM_LANES-th quad of the row; then every thread adds up the lanes for itself, as a tree, so
// that nobody waits for the answer. The variance is taken in a second pass, from differences to the mean: the one-pass form
// E[x²] - E[x]² loses every digit when the mean is large. norm-lanes.wgsl does the same in registers, with the same bits.
//
// The kernel defines `norm_source(quad) -> vec4f`, a quad of the row, zero past the last column.

const NORM_LANES = 32u;

var<workgroup> norm_lanes: array<f32, NORM_LANES>;

// The lanes as a tree: the upper half is added to the lower, until one is left.
fn lane_pair(i: u32) -> f32 {
  return norm_lanes[i] + norm_lanes[i + 16u];
}

fn lane_four(i: u32) -> f32 {
  return lane_pair(i) + lane_pair(i + 8u);
}

fn lane_eight(i: u32) -> f32 {
  return lane_four(i) + lane_four(i + 4u);
}

fn lanes_total() -> f32 {
  return (lane_eight(0u) + lane_eight(2u)) + (lane_eight(1u) + lane_eight(3u));
}

// x less the mean, zero in the row's padding.
fn norm_difference(quad: u32, cols: u32, mean: f32) -> vec4f {
  let columns = vec4u(quad * 4u) + vec4u(0u, 1u, 2u, 3u);
  return select(vec4f(), norm_source(quad) - mean, columns < vec4u(cols));
}

// Mean and 1/√(variance + ε). Every thread of the workgroup calls, of which there are at least NORM_LANES. 1 / cols comes
// from the host: compilers divide by a constant in one way and by a variable in another.
fn norm_statistics(thread: u32, cols: u32, inverse_cols: f32, epsilon: f32) -> vec2f {
  let quads = (cols + 3u) / 4u;
  if (thread < NORM_LANES) {
    var sum = vec4f();
    for (var quad = thread; quad < quads; quad += NORM_LANES) {
      sum += norm_source(quad);
    }
    norm_lanes[thread] = (sum.x + sum.y) + (sum.z + sum.w);
  }
  workgroupBarrier(); // every lane's sum is there
  let mean = lanes_total() * inverse_cols;
  workgroupBarrier(); // all have read the sums, before the squares overwrite them

  if (thread < NORM_LANES) {
    var squares = vec4f();
    for (var quad = thread; quad < quads; quad += NORM_LANES) {
      let difference = norm_difference(quad, cols, mean);
      squares = fma(difference, difference, squares);
    }
    norm_lanes[thread] = (squares.x + squares.y) + (squares.z + squares.w);
  }
  workgroupBarrier(); // every lane's squares are there
  let variance = lanes_total() * inverse_cols; // the biased one
  return vec2f(mean, 1.0 / sqrt(variance + epsilon));
}

// A quad of the normalised row.
fn normalised(x: vec4f, statistics: vec2f, weight: vec4f, bias: vec4f) -> vec4f {
  return fma((x - statistics.x) * statistics.y, weight, bias);
}
