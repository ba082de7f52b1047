// Part: what all forms of the product x · w + bias agree on: its sizes, its end, and the order of its sum.
//
// The sum over k is taken in shares of SHARE_QUADS quads, each a chain of fma from zero; GROUP_SHARES shares make a group,
// and groups are added in order. A thread that computes alone goes through them one after the other; threads that share a
// column take a share each, and their sums meet in the same order.
//
// Only the kernels of prompts, matmul-naive.wgsl, -tiles and -registers, sum otherwise: one chain of fma along k, from zero.
// A thread with many outputs has no registers for three sums of each.
//
// The kernel binds w [K, N] and bias [1, N]; where stored values need a scale (SCALED), bias has a second row, the scale of
// each column. Sizes are constants of the pipeline: with params a kernel would wait for them before it asks for anything
// else, and its loops would not unroll.

override DEPTH: u32 = 1u;   // K
override N_QUADS: u32 = 1u; // vec4s in a row of w, bias and the result
override K_QUADS: u32 = (DEPTH + 3u) / 4u;

const SHARE_QUADS = 6u;
const GROUP_SHARES = 8u;

// What is added to a quad of columns, and what it is multiplied with before, where stored values need a scale. Kernels ask
// for both before they wait for anything: behind the sum they would be one more trip to memory.
struct Finish {
  bias: vec4f,
  scale: vec4f,
}

fn finish_of(column: u32) -> Finish {
  var finish: Finish;
  finish.bias = bias[column];
  if (SCALED) {
    finish.scale = bias[N_QUADS + column] * SCALE_UNIT;
  }
  return finish;
}

// The finished sum of a quad of columns, scaled and with its bias.
fn biased(sum: vec4f, finish: Finish) -> vec4f {
  if (SCALED) {
    return fma(sum, finish.scale, finish.bias);
  }
  return sum + finish.bias;
}
