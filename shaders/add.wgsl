// Elementwise sum:  y[i] = a[i] + b[i]
//
// One thread adds four neighbouring elements. Row padding is zero in both inputs, and so in the sum.
//
//   dispatch  [x, y] workgroups, together at least ceil(quads / 64)
//   a, b, y   [rows, cols]  f32, the same shape

const WORKGROUP_SIZE = 64u;

struct Params {
  quads: u32, // vec4s in each tensor, padding included
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  // One dimension of a dispatch ends at 65,535 workgroups, so the second one continues it.
  let i = (workgroup.y * grid.x + workgroup.x) * WORKGROUP_SIZE + thread;
  if (i >= params.quads) {
    return;
  }
  y[i] = a[i] + b[i];
}
