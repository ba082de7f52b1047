// with storage-f16.wgsl
// with activation.wgsl
// with matrix-tile-64x64.wgsl | matrix-tile-32x32.wgsl | matrix-tile-32x64.wgsl | matrix-tile-64x128.wgsl | matrix-tile-128x128.wgsl | matrix-tile-128x256.wgsl
// with matrix-x-f32.wgsl | matrix-x-f16.wgsl
// with matrix-y-f32.wgsl | matrix-y-f16.wgsl
// with matrix-product.wgsl
// with matrix-sums-2x2.wgsl | matrix-sums-1x1.wgsl | matrix-sums-4x2.wgsl | matrix-sums-4x4.wgsl
// with matrix-rows.wgsl
//
// matmul.wgsl by subgroup matrices:  y[r, n] = epilogue(Σ_k half(x[r, k]) · w[k, n] + bias[n])
//
//   dispatch  [ceil(N / TILE_COLUMNS), ceil(rows / TILE_ROWS)]
//   x         [rows, K]  f32, rounded to halves on the way to the tensor cores, or f16
//   w         [K, N]     f16
//   bias      [1, N]     f32
//   residual  [rows, N]  f32, read when EPILOGUE is ADD_RESIDUAL
//   y         [rows, N]  f32 or f16

struct Params {
  rows: u32,
  depth: u32,   // K
  k_octs: u32,  // octs in a row of x
  n_octs: u32,  // octs in a row of w
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<RowElement>;
@group(0) @binding(2) var<storage, read> w: array<Oct>;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;
@group(0) @binding(4) var<storage, read> residual: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> y: array<ResultQuad>;

fn finish(row: u32, column: u32, value: vec4f) {
  let at = row * 2u * params.n_octs + column;
  var result = activate(value);
  if (EPILOGUE == ADD_RESIDUAL) {
    result += residual[at];
  }
  y[at] = result_of(result);
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  multiply_rows(workgroup.xy, thread, subgroup);
}
