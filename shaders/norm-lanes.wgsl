enable subgroups;
// Part: a row of x, normalised, for GPUs whose subgroups are 32 threads; the portable form is norm-row.wgsl.
//
// Every subgroup finds mean and deviation for itself, in registers: no workgroup memory and no barrier, so that the loads of
// the weights, which set out before, are not waited for. The lanes and the tree are those of norm.wgsl, and so are the bits:
// a butterfly adds the same pairs. Each thread normalises the quads of its own share.
//
// The kernel binds x [rows, K] and norm [2, K] (weight, then bias), has the constants DEPTH (K), K_QUADS (vec4s in a row) and
// SHARE_QUADS, and sets row_first.

override EPSILON: f32 = 1e-5;
override INVERSE_DEPTH: f32 = 1.0; // 1 / K, rounded by the host

const LANES_OF_ROW = 32u;

var<private> row_first: u32; // where the row begins in x, in vec4s
var<private> row_statistics: vec2f;
var<private> share_x: array<vec4f, SHARE_QUADS>;
var<private> share_weight: array<vec4f, SHARE_QUADS>;
var<private> share_bias: array<vec4f, SHARE_QUADS>;

// Ask for the quads of a share. Past the end of the row the last one stands in, and share_quad leaves it out.
fn fetch_row(share: u32) {
  for (var i = 0u; i < SHARE_QUADS; i++) {
    let quad = min(share * SHARE_QUADS + i, K_QUADS - 1u);
    share_x[i] = x[row_first + quad];
    share_weight[i] = norm[quad];
    share_bias[i] = norm[K_QUADS + quad];
  }
}

fn norm_source(quad: u32) -> vec4f {
  return x[row_first + quad];
}

// One value a lane, summed as a tree; every lane gets the sum.
fn lanes_sum(value: vec4f) -> f32 {
  var sum = (value.x + value.y) + (value.z + value.w);
  sum += subgroupShuffleXor(sum, 16u);
  sum += subgroupShuffleXor(sum, 8u);
  sum += subgroupShuffleXor(sum, 4u);
  sum += subgroupShuffleXor(sum, 2u);
  sum += subgroupShuffleXor(sum, 1u);
  return sum;
}

// Find the row's mean and deviation. Every thread of the workgroup calls.
fn normalise_row(thread: u32, threads: u32) {
  let lane = subgroupExclusiveAdd(1u); // its number in the subgroup, since all threads are here
  var sum = vec4f();
  for (var quad = lane; quad < K_QUADS; quad += LANES_OF_ROW) {
    sum += norm_source(quad);
  }
  let mean = lanes_sum(sum) * INVERSE_DEPTH;
  var squares = vec4f();
  for (var quad = lane; quad < K_QUADS; quad += LANES_OF_ROW) {
    let difference = norm_difference(quad, DEPTH, mean);
    squares = fma(difference, difference, squares);
  }
  let variance = lanes_sum(squares) * INVERSE_DEPTH;
  row_statistics = vec2f(mean, 1.0 / sqrt(variance + EPSILON));
}

fn share_quad(share: u32, i: u32) -> vec4f {
  let value = normalised(share_x[i], row_statistics, share_weight[i], share_bias[i]);
  return select(vec4f(), value, share * SHARE_QUADS + i < K_QUADS);
}

fn x_quad(quad: u32) -> vec4f {
  return normalised(norm_source(quad), row_statistics, norm[quad], norm[K_QUADS + quad]);
}
