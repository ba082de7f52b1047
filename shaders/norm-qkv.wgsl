// with storage-f32.wgsl | storage-f16.wgsl | storage-i8.wgsl
// with kv-f32.wgsl | kv-f16.wgsl
// with product.wgsl
// with shares.wgsl | alone.wgsl
// with norm.wgsl
// with norm-row.wgsl | norm-lanes.wgsl
//
// Layer norm, the product that gives query, key and value, and the write of key and value into the cache, in one launch:
//
//   q[s] = qkv[0 … C)    k[slot_mapping[s]] = qkv[C … 2 · C)    v[slot_mapping[s]] = qkv[2 · C … 3 · C)
//   with qkv = Σ_k norm(x[s])[k] · w[k] + bias
//
// norm-matvec.wgsl with another store, so layernorm.wgsl, matvec.wgsl and kv-write.wgsl one after the other, with the same
// bits. Heads must be multiples of four channels, so that a quad of columns belongs to one of query, key and value.
//
//   dispatch      [ceil(N_QUADS / COLUMNS), S]
//   x             [S, C]      f32, one new token of each sequence
//   norm          [2, C]      f32, weight and bias of the layer norm
//   w             [C, 3 · C]
//   bias          [1, 3 · C]  f32, and a second row of scales for w in bytes
//   slot_mapping  [S]         u32, the slot of each token
//   q             [S, C]      f32
//   k, v          [slots, H, D]

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> norm: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<Packed4>;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;
@group(0) @binding(4) var<storage, read> slot_mapping: array<u32>;
@group(0) @binding(5) var<storage, read_write> q: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> k: array<Kv4>;
@group(0) @binding(7) var<storage, read_write> v: array<Kv4>;

@compute @workgroup_size(COLUMNS, SPLIT)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(local_invocation_id) thread: vec3u,
  @builtin(local_invocation_index) index: u32,
) {
  let column = workgroup.x * COLUMNS + thread.x;
  let token = workgroup.y;
  row_first = workgroup.y * K_QUADS;
  load_share(thread.y, column);
  let finish = finish_of(min(column, N_QUADS - 1u));
  let slot = slot_mapping[token] * K_QUADS;
  normalise_row(index, COLUMNS * SPLIT);
  let sum = sum_columns(thread.xy, column);
  if (thread.y == 0u && column < N_QUADS) {
    let value = biased(sum, finish);
    if (column < K_QUADS) {
      q[token * K_QUADS + column] = value;
    } else if (column < 2u * K_QUADS) {
      k[slot + column - K_QUADS] = pack_kv(value);
    } else {
      v[slot + column - 2u * K_QUADS] = pack_kv(value);
    }
  }
}
