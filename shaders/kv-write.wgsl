// with storage-f32.wgsl | storage-f16.wgsl
//
// Put the new tokens' keys and values where the cache wants them:  k[slot_mapping[t], h] = key of token t, head h
//
// One thread stores four channels of one head, of the key and of the value. A head's row in the cache is padded to a
// multiple of four with zeros, so that attention can load four at a time whatever the head size.
//
//   dispatch      [ceil(H · head_quads / 64), T]
//   qkv           [T, 3 · C]  f32, query, key and value side by side; rows padded to `stride`
//   slot_mapping  [T]         u32, where each token goes; a slot is page · page size + offset
//   k, v          [slots, H, head_quads · 4]

const WORKGROUP_SIZE = 64u;

struct Params {
  heads: u32,
  head_size: u32,
  head_quads: u32, // vec4s of a head in the cache
  stride: u32,     // elements from one row of qkv to the next
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;
@group(0) @binding(2) var<storage, read> slot_mapping: array<u32>;
@group(0) @binding(3) var<storage, read_write> k: array<Packed4>;
@group(0) @binding(4) var<storage, read_write> v: array<Packed4>;

// Four channels of a head from qkv, zero past the head's end.
fn channels_at(first: u32, channel: u32) -> vec4f {
  var quad = vec4f();
  for (var i = 0u; i < 4u && channel + i < params.head_size; i++) {
    quad[i] = qkv[first + channel + i];
  }
  return quad;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let token = id.y;
  let head = id.x / params.head_quads;
  let quad = id.x % params.head_quads;
  if (head >= params.heads) {
    return;
  }
  let channels = params.heads * params.head_size;
  let key = token * params.stride + channels + head * params.head_size;
  let value = key + channels;
  let at = (slot_mapping[token] * params.heads + head) * params.head_quads + quad;
  k[at] = pack4(channels_at(key, quad * 4u));
  v[at] = pack4(channels_at(value, quad * 4u));
}
