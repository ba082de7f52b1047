// with storage-f16.wgsl
// with matrix-tile-64x64.wgsl | matrix-tile-32x32.wgsl | matrix-tile-32x64.wgsl | matrix-tile-64x128.wgsl | matrix-tile-128x128.wgsl | matrix-tile-128x256.wgsl
// with matrix-x-f32.wgsl | matrix-x-f16.wgsl
// with matrix-product.wgsl
// with matrix-sums-2x2.wgsl | matrix-sums-1x1.wgsl | matrix-sums-4x2.wgsl | matrix-sums-4x4.wgsl
//
// matmul-transposed.wgsl by subgroup matrices:  y[r, first + n] = Σ_k half(x[r, k]) · w[n, k]
//
//   dispatch  [ceil(columns / TILE_COLUMNS), ceil(rows / TILE_ROWS)]
//   x         [rows, K]  f32, rounded to halves on the way to the tensor cores, or f16
//   w         [count, K] f16
//   y         [rows, N]  f32, rows padded to `stride`; columns first … first + columns are written, zero from count on.
//                        first, columns and stride are multiples of 4

struct Params {
  rows: u32,
  depth: u32,   // K
  k_octs: u32,  // octs in a row of x and of w
  first: u32,   // column of y that w begins with
  count: u32,   // rows of w
  columns: u32, // columns of y to write: count, and the padding behind the last block
  stride: u32,  // elements from one row of y to the next
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<RowElement>;
@group(0) @binding(2) var<storage, read> w: array<Oct>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;

// w's tile lies in workgroup memory as in w: a row for each column of y.
const W_STRIDE = DEPTH_OCTS + 1u;
const W_OCTS = TILE_COLUMNS * W_STRIDE;

var<private> first_column: u32; // of w's rows

fn fetch_w(i: u32, k: u32, thread: u32) -> vec4u {
  let oct = i * THREADS + thread;
  let row = first_column + oct / DEPTH_OCTS;
  let column = k / 8u + oct % DEPTH_OCTS;
  return w[min(row, params.count - 1u) * params.k_octs + min(column, params.k_octs - 1u)];
}

fn is_w(i: u32, k: u32, thread: u32) -> bool {
  let oct = i * THREADS + thread;
  return first_column + oct / DEPTH_OCTS < params.count && k / 8u + oct % DEPTH_OCTS < params.k_octs;
}

fn w_place(i: u32, thread: u32) -> u32 {
  let oct = i * THREADS + thread;
  return oct / DEPTH_OCTS * W_STRIDE + oct % DEPTH_OCTS;
}

fn w_matrix(k: u32, column: u32) -> Right {
  return subgroupMatrixLoad<Right, col_major>(&stage, X_OCTS + column * W_STRIDE + k / 8u, W_STRIDE);
}

// A strip that is in workgroup memory.
fn finish_strip(strip: u32, first_row: u32, thread: u32) {
  workgroupBarrier(); // the strip is complete
  for (var i = 0u; i < STRIP_LOADS; i++) {
    let place = strip_place(strip, i, thread);
    let row = first_row + place.x;
    let column = first_column + 4u * place.y;
    if (row < params.rows && column < params.columns) {
      y[(row * params.stride + params.first + column) / 4u] = strip_sum(i, thread);
    }
  }
  workgroupBarrier(); // the strip was read
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  let first_row = workgroup.y * TILE_ROWS;
  first_column = workgroup.x * TILE_COLUMNS;
  var sums = multiply_tile(first_row, params.rows - 1u, thread, subgroup);
  finish_sums(&sums, first_row, thread, subgroup);
}
