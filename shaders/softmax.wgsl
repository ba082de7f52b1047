// with reduce.wgsl
//
// Row-wise softmax:  y[r, c] = exp(x[r, c] - max_r) / sum_r
//
// One workgroup owns one row. Its threads stride over the columns, then agree on the row's maximum and on the sum of
// exponentials. Subtracting the maximum keeps exp within (0, 1], so no row overflows.
//
//   dispatch  [x, y] workgroups, together at least one a row
//   x, y      [rows, cols]  f32, rows padded to `stride`

struct Params {
  rows: u32,
  cols: u32,
  stride: u32, // elements from one row to the next
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

const LOWEST = -3.4028234e38;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = workgroup.y * grid.x + workgroup.x;
  if (row >= params.rows) {
    return; // the whole workgroup leaves together, so no barrier waits for it
  }
  let first = row * params.stride;

  // 1. The row's maximum.
  var largest = LOWEST;
  for (var c = thread; c < params.cols; c += WORKGROUP_SIZE) {
    largest = max(largest, x[first + c]);
  }
  largest = reduce_max(thread, largest);

  // 2. The sum of exponentials.
  var sum = 0.0;
  for (var c = thread; c < params.cols; c += WORKGROUP_SIZE) {
    sum += exp(x[first + c] - largest);
  }
  sum = reduce_sum(thread, sum);

  // 3. The quotient; padding becomes zero.
  for (var c = thread; c < params.stride; c += WORKGROUP_SIZE) {
    y[first + c] = select(0.0, exp(x[first + c] - largest) / sum, c < params.cols);
  }
}
