// with storage-f32.wgsl | storage-f16.wgsl | storage-i8.wgsl
// with activation.wgsl
// with product.wgsl
// with shares.wgsl | alone.wgsl
// with norm.wgsl
// with norm-row.wgsl | norm-lanes.wgsl
//
// Layer norm and product in one launch:  y[r, n] = epilogue(Σ_k norm(x[r])[k] · w[k, n] + bias[n])
//
// layernorm.wgsl and matvec.wgsl one after the other, with the same bits: a row is normalised while the weights travel.
//
//   dispatch  [ceil(N_QUADS / COLUMNS), rows]
//   x         [rows, K]  f32
//   norm      [2, K]     f32, weight and bias of the layer norm
//   w         [K, N]
//   bias      [1, N]     f32, and a second row of scales for w in bytes
//   y         [rows, N]  f32

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> norm: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<Packed4>;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4f>;

@compute @workgroup_size(COLUMNS, SPLIT)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(local_invocation_id) thread: vec3u,
  @builtin(local_invocation_index) index: u32,
) {
  let column = workgroup.x * COLUMNS + thread.x;
  row_first = workgroup.y * K_QUADS;
  load_share(thread.y, column);
  let finish = finish_of(min(column, N_QUADS - 1u));
  normalise_row(index, COLUMNS * SPLIT);
  let sum = sum_columns(thread.xy, column);
  if (thread.y == 0u && column < N_QUADS) {
    y[workgroup.y * N_QUADS + column] = activate(biased(sum, finish));
  }
}
