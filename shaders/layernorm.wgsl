// with reduce.wgsl
//
// Layer normalisation (Ba, Kiros and Hinton, 2016):  y[r, c] = (x[r, c] - mean_r) / √(var_r + ε) · weight[c] + bias[c]
//
// One workgroup owns one row. The variance is taken in a second pass over the row, from differences to the mean: the
// one-pass form E[x²] - E[x]² loses every digit when the mean is large.
//
//   dispatch  [rows]
//   x, y      [rows, cols]  f32, rows padded to `stride`
//   norm      [2, cols]     f32, zero in the padding: weight, then bias

struct Params {
  cols: u32,
  stride: u32, // elements from one row to the next
  epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> norm: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let first = workgroup.x * params.stride;

  // 1. Mean.
  var sum = 0.0;
  for (var c = thread; c < params.cols; c += WORKGROUP_SIZE) {
    sum += x[first + c];
  }
  let mean = reduce_sum(thread, sum) / f32(params.cols);

  // 2. Variance, the biased one.
  var squares = 0.0;
  for (var c = thread; c < params.cols; c += WORKGROUP_SIZE) {
    let difference = x[first + c] - mean;
    squares += difference * difference;
  }
  let variance = reduce_sum(thread, squares) / f32(params.cols);
  let scale = 1.0 / sqrt(variance + params.epsilon);

  // 3. Normalise. In the padding weight and bias are zero, and so is y.
  for (var c = thread; c < params.stride; c += WORKGROUP_SIZE) {
    y[first + c] = (x[first + c] - mean) * scale * norm[c] + norm[params.stride + c];
  }
}
