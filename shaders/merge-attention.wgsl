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

@group(0) @binding(0) var<storage, read> partials: array<vec4f>;
@group(0) @binding(1) var<storage, read> context_lens: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_index) thread: u32) {
  let sequence = id.y;
  let quads = HEADS * HEAD_QUADS;
  weigh_chunks(sequence, thread, WORKGROUP_SIZE);
  if (id.x < quads) {
    y[sequence * quads + id.x] = merged_quad(sequence, id.x / HEAD_QUADS, id.x % HEAD_QUADS);
  }
}
