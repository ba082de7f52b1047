// with storage-f32.wgsl | storage-f16.wgsl
// with norm.wgsl
//
// Layer normalisation (Ba, Kiros and Hinton, 2016):  y[r, c] = (x[r, c] - mean_r) / √(var_r + ε) · weight[c] + bias[c]
//
// One workgroup owns one row; norm.wgsl says how its threads find mean and deviation.
//
//   dispatch  [rows]
//   x         [rows, cols]  f32
//   norm      [2, cols]     f32, zero in the padding: weight, then bias
//   y         [rows, cols]  f32, or f16 for a product that rounds its rows to halves

const WORKGROUP_SIZE = 64u;

struct Params {
  cols: u32,
  quads: u32, // vec4s in a row of x, y and norm
  inverse_cols: f32,
  epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> norm: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<Packed4>;

var<private> first: u32; // where this workgroup's row begins

fn norm_source(quad: u32) -> vec4f {
  return x[first + quad];
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let quads = params.quads;
  first = workgroup.x * quads;
  let statistics = norm_statistics(thread, params.cols, params.inverse_cols, params.epsilon);
  // In the padding weight and bias are zero, and so is y.
  for (var quad = thread; quad < quads; quad += WORKGROUP_SIZE) {
    y[first + quad] = pack4(normalised(x[first + quad], statistics, norm[quad], norm[quads + quad]));
  }
}
