// with storage-f16.wgsl
// with matrix-tile-32.wgsl | matrix-tile-64.wgsl | matrix-tile-128.wgsl
// with matrix-x-f32.wgsl | matrix-x-f16.wgsl
// with matrix-product.wgsl
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
  k_quads: u32, // vec4s in a row of x and of w
  first: u32,   // column of y that w begins with
  count: u32,   // rows of w
  columns: u32, // columns of y to write: count, and the padding behind the last block
  stride: u32,  // elements from one row of y to the next
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<RowQuad>;
@group(0) @binding(2) var<storage, read> w: array<Packed4>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;

// w's tile lies in workgroup memory as in w: a row for each column of y.
const W_STRIDE = TILE_DEPTH / 4u + 2u;
const W_QUADS = TILE_COLUMNS * W_STRIDE;

var<private> first_column: u32; // of w's rows

fn fetch_w(i: u32, k: u32, thread: u32) -> Packed4 {
  let quad = i * THREADS + thread;
  let row = first_column + quad / (TILE_DEPTH / 4u);
  let column = k / 4u + quad % (TILE_DEPTH / 4u);
  let inside = row < params.count && column < params.k_quads;
  return select(Packed4(), w[min(row, params.count - 1u) * params.k_quads + min(column, params.k_quads - 1u)], inside);
}

fn w_place(i: u32, thread: u32) -> u32 {
  let quad = i * THREADS + thread;
  return quad / (TILE_DEPTH / 4u) * W_STRIDE + quad % (TILE_DEPTH / 4u);
}

fn w_matrix(at: u32, k: u32, column: u32) -> Right {
  return subgroupMatrixLoad<Right, col_major>(&stages, at + column * W_STRIDE + k / 4u, W_STRIDE);
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

  // Store: strip by strip.
  for (var strip = 0u; strip < ROW_MATRICES; strip++) {
    store_strip(&sums, strip, subgroup);
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
}
