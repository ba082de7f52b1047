// with activation.wgsl
//
// GELU of every element:  y[i] = x[i] · Φ(x[i])
//
// One thread takes four neighbouring elements. Row padding stays zero, since GELU(0) = 0.
//
//   dispatch  [x, y] workgroups, together at least ceil(quads / 64)
//   x, y      [rows, cols]  f32

const WORKGROUP_SIZE = 64u;

override USE_ERF: bool = false; // the exact form instead of GPT-2's tanh form

struct Params {
  quads: u32, // vec4s in each tensor, padding included
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;

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
  if (USE_ERF) {
    y[i] = gelu_erf(x[i]);
  } else {
    y[i] = gelu_tanh(x[i]);
  }
}
