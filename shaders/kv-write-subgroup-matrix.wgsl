// with storage-f16.wgsl
// with kv-f32.wgsl | kv-f16.wgsl
// with matrix-tile-64x64.wgsl | matrix-tile-32x32.wgsl | matrix-tile-32x64.wgsl | matrix-tile-64x128.wgsl | matrix-tile-128x128.wgsl | matrix-tile-128x256.wgsl
// with matrix-x-f32.wgsl | matrix-x-f16.wgsl
// with matrix-y-f32.wgsl | matrix-y-f16.wgsl
// with matrix-product.wgsl
// with matrix-sums-2x2.wgsl | matrix-sums-1x1.wgsl | matrix-sums-4x2.wgsl | matrix-sums-4x4.wgsl
// with matrix-rows.wgsl
//
// The product that gives query, key and value, by subgroup matrices, and the write of key and value into the cache, in one
// launch: matmul-subgroup-matrix.wgsl and kv-write.wgsl one after the other, with the same bits.
//
//   q[t] = qkv[0 … C)    k[slot_mapping[t]] = qkv[C … 2 · C)    v[slot_mapping[t]] = qkv[2 · C … 3 · C)
//   with qkv = Σ_k half(x[t, k]) · w[k] + bias
//
// Heads must be multiples of four channels, so that a quad of columns belongs to one of query, key and value.
//
//   dispatch      [ceil(3 · C / TILE_COLUMNS), ceil(T / TILE_ROWS)]
//   x             [T, C]      f32 or f16
//   w             [C, 3 · C]  f16
//   bias          [1, 3 · C]  f32
//   slot_mapping  [T]         u32, the slot of each token
//   q             [T, C]      f32 or f16
//   k, v          [slots, H, D]

struct Params {
  rows: u32,    // T
  depth: u32,   // C
  k_octs: u32,  // octs of C channels
  n_octs: u32,  // octs in a row of w: 3 · k_octs
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<RowElement>;
@group(0) @binding(2) var<storage, read> w: array<Oct>;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;
@group(0) @binding(4) var<storage, read> slot_mapping: array<u32>;
@group(0) @binding(5) var<storage, read_write> q: array<ResultQuad>;
@group(0) @binding(6) var<storage, read_write> k: array<Kv4>;
@group(0) @binding(7) var<storage, read_write> v: array<Kv4>;

// Store a quad of a row of qkv.
fn finish(row: u32, column: u32, value: vec4f) {
  let quads = 2u * params.k_octs;
  if (column < quads) {
    q[row * quads + column] = result_of(value);
  } else if (column < 2u * quads) {
    k[slot_mapping[row] * quads + column - quads] = pack_kv(value);
  } else {
    v[slot_mapping[row] * quads + column - 2u * quads] = pack_kv(value);
  }
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  multiply_rows(workgroup.xy, thread, subgroup);
}
