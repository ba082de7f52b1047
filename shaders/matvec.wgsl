// with storage-f32.wgsl | storage-f16.wgsl | storage-i8.wgsl
// with activation.wgsl
// with product.wgsl
// with shares.wgsl | alone.wgsl
//
// The matrix product of matmul.wgsl for few rows:  y[r, n] = epilogue(Σ_k x[r, k] · w[k, n] + bias[n])
//
// A workgroup owns COLUMNS × 4 columns of one row; shares.wgsl says how its threads divide the sum.
//
//   dispatch  [ceil(N_QUADS / COLUMNS), rows]
//   x         [rows, K]  f32
//   w         [K, N]     as GPT-2's Conv1D stores it
//   bias      [1, N]     f32, and a second row of scales for w in bytes
//   residual  [rows, N]  f32, read when EPILOGUE is ADD_RESIDUAL
//   y         [rows, N]  f32

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> w: array<Packed4>;
@group(0) @binding(2) var<storage, read> bias: array<vec4f>;
@group(0) @binding(3) var<storage, read> residual: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4f>;

var<private> x_row: u32; // where this workgroup's row of x begins
var<private> share_x: array<vec4f, SHARE_QUADS>;

fn x_quad(quad: u32) -> vec4f {
  return x[x_row + quad];
}

fn fetch_row(share: u32) {
  for (var i = 0u; i < SHARE_QUADS; i++) {
    let quad = share * SHARE_QUADS + i;
    share_x[i] = select(vec4f(), x[x_row + min(quad, K_QUADS - 1u)], quad < K_QUADS);
  }
}

fn share_quad(share: u32, i: u32) -> vec4f {
  return share_x[i];
}

@compute @workgroup_size(COLUMNS, SPLIT)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_id) thread: vec3u) {
  let row = workgroup.y;
  let column = workgroup.x * COLUMNS + thread.x;
  x_row = row * K_QUADS;
  load_share(thread.y, column);
  let last = min(column, N_QUADS - 1u);
  let finish = finish_of(last);
  let at = row * N_QUADS + column;
  var addend = vec4f();
  if (EPILOGUE == ADD_RESIDUAL) {
    addend = residual[row * N_QUADS + last];
  }
  let sum = sum_columns(thread.xy, column);
  if (thread.y == 0u && column < N_QUADS) {
    var value = activate(biased(sum, finish));
    if (EPILOGUE == ADD_RESIDUAL) {
      value += addend;
    }
    y[at] = value;
  }
}
