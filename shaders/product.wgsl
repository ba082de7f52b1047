// Part: what all forms of the product x · w + bias agree on, so that they give the same bits.
//
// The sum over k is taken in shares of SHARE_QUADS quads, each a chain of fma from zero; GROUP_SHARES shares make a group,
// and groups are added in order. A thread that computes alone goes through them one after the other; threads that share a
// column take a share each, and their sums meet in the same order.
//
// The kernel binds w [K, n_quads] and bias [1, n_quads]; where stored values need a scale (SCALED), bias has a second
// row, the scale of each column. Its params have n_quads.

const SHARE_QUADS = 6u;
const GROUP_SHARES = 16u;

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
    finish.scale = bias[params.n_quads + column] * SCALE_UNIT;
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
