// with storage-f32.wgsl | storage-f16.wgsl
//
// Copy pages of keys and values: within a cache, out of it into a block, or from a block back into it.
//
// One thread copies a quad of a page, of the keys and of the values. Pages that are copied within the cache are no others'
// destination in the same launch, so the order of threads does not matter.
//
//   dispatch  [ceil(page_quads / 64), count]
//   pairs     [count, 2]  u32, from and to: pages of the cache, or of the block where they lie there
//   k, v      [pages, page_quads]
//   block     [2, pages of the block, page_quads] from quad `first` on: keys, then values; not touched by WITHIN

const WORKGROUP_SIZE = 64u;
const WITHIN = 0u;
const OUT = 1u;

override DIRECTION: u32 = 0u; // WITHIN the cache, OUT of it, or 2: into it

struct Params {
  page_quads: u32, // vec4s of a page: slots · H · vec4s of a head
  first: u32,      // quad of the block where this layer begins
  values: u32,     // quads from the keys to the values in the block
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> pairs: array<u32>;
@group(0) @binding(2) var<storage, read_write> k: array<Packed4>;
@group(0) @binding(3) var<storage, read_write> v: array<Packed4>;
@group(0) @binding(4) var<storage, read_write> block: array<Packed4>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let quad = id.x;
  if (quad >= params.page_quads) {
    return;
  }
  let source = pairs[2u * id.y] * params.page_quads + quad;
  let target_quad = pairs[2u * id.y + 1u] * params.page_quads + quad;
  if (DIRECTION == WITHIN) {
    k[target_quad] = k[source];
    v[target_quad] = v[source];
  } else if (DIRECTION == OUT) {
    block[params.first + target_quad] = k[source];
    block[params.first + params.values + target_quad] = v[source];
  } else {
    k[target_quad] = block[params.first + source];
    v[target_quad] = block[params.first + params.values + source];
  }
}
