// with storage-f16.wgsl
// with activation.wgsl
// with matrix-tile-32.wgsl | matrix-tile-64.wgsl
// with matrix-product.wgsl
//
// matmul.wgsl by subgroup matrices:  y[r, n] = epilogue(Σ_k half(x[r, k]) · w[k, n] + bias[n])
//
//   dispatch  [ceil(N / TILE_COLUMNS), ceil(rows / TILE_ROWS)]
//   x         [rows, K]  f32, rounded to halves on the way to the tensor cores
//   w         [K, N]     f16
//   bias      [1, N]     f32
//   residual  [rows, N]  f32, read when EPILOGUE is ADD_RESIDUAL
//   y         [rows, N]  f32

struct Params {
  rows: u32,
  depth: u32,   // K
  k_quads: u32, // vec4s in a row of x
  n_quads: u32, // vec4s in a row of w, bias and the result
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<Packed4>;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;
@group(0) @binding(4) var<storage, read> residual: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4f>;

// w's tile lies in workgroup memory as in w: a row for each k.
const W_STRIDE = TILE_COLUMNS / 4u + 2u;
const W_QUADS = TILE_DEPTH * W_STRIDE;

var<private> first_quad: u32; // of columns

fn fetch_w(i: u32, k: u32, thread: u32) -> Packed4 {
  let quad = i * THREADS + thread;
  let row = k + quad / (TILE_COLUMNS / 4u);
  let column = min(first_quad + quad % (TILE_COLUMNS / 4u), params.n_quads - 1u);
  return select(Packed4(), w[min(row, params.depth - 1u) * params.n_quads + column], row < params.depth);
}

fn w_place(i: u32, thread: u32) -> u32 {
  let quad = i * THREADS + thread;
  return quad / (TILE_COLUMNS / 4u) * W_STRIDE + quad % (TILE_COLUMNS / 4u);
}

fn w_matrix(at: u32, k: u32, column: u32) -> Right {
  return subgroupMatrixLoad<Right, row_major>(&stages, at + k * W_STRIDE + column / 4u, W_STRIDE);
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  let first_row = workgroup.y * TILE_ROWS;
  first_quad = workgroup.x * (TILE_COLUMNS / 4u);
  var sums = multiply_tile(first_row, params.rows - 1u, thread, subgroup);

  // Bias, epilogue, store: strip by strip.
  for (var strip = 0u; strip < ROW_MATRICES; strip++) {
    store_strip(&sums, strip, subgroup);
    workgroupBarrier(); // the strip is complete
    for (var i = 0u; i < STRIP_LOADS; i++) {
      let place = strip_place(strip, i, thread);
      let row = first_row + place.x;
      let column = first_quad + place.y;
      if (row < params.rows && column < params.n_quads) {
        let at = row * params.n_quads + column;
        var value = activate(strip_sum(i, thread) + bias[column]);
        if (EPILOGUE == ADD_RESIDUAL) {
          value += residual[at];
        }
        y[at] = value;
      }
    }
    workgroupBarrier(); // the strip was read
  }
}
