// with merge-chunks.wgsl
//
// The result of decode attention, out of the chunks of every context.
//
// One thread computes one quad. The fused form is merge-matvec.wgsl, which merges on the way to the projection.
//
//   dispatch       [ceil(C / 4 / 64), S]
//   partials       [S, H, chunks, head_quads + 1]  vec4f, as decode-attention.wgsl leaves them
//   context_lens   [S]     u32
//   y              [S, C]  f32

const WORKGROUP_SIZE = 64u;

struct Params {
  heads: u32,
  head_quads: u32, // vec4s of a head
  chunks: u32,     // of 128 positions, in the longest context
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> partials: array<vec4f>;
@group(0) @binding(2) var<storage, read> context_lens: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) thread: vec3u) {
  let sequence = thread.y;
  let quads = params.heads * params.head_quads;
  if (thread.x < quads) {
    let head = thread.x / params.head_quads;
    y[sequence * quads + thread.x] = merged_quad(sequence, head, thread.x % params.head_quads);
  }
}
