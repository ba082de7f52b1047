// Pick rows:  y[i, c] = x[rows[i], c]
//
// One thread copies four neighbouring elements. It takes the last token of each sequence to the head, so that logits are
// computed only where they are wanted.
//
//   dispatch  [ceil(quads / 64), count]
//   x         [T, C]      f32
//   rows      [count]     u32, each < T
//   y         [count, C]  f32

const WORKGROUP_SIZE = 64u;

struct Params {
  quads: u32, // vec4s in a row
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> rows: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.quads) {
    return;
  }
  y[id.y * params.quads + id.x] = x[rows[id.y] * params.quads + id.x];
}
