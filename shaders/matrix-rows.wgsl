// Part: matrix-product.wgsl for w [K, N] as GPT-2's Conv1D stores it, with bias [1, N]. The kernel has the params rows and n_quads
// too, and defines finish(row, column, value): what becomes of a quad of columns that has its bias.

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

// A workgroup's tile of the product, and `finish` for each of its quads.
fn multiply_rows(workgroup: vec2u, thread: u32, subgroup: u32) {
  let first_row = workgroup.y * TILE_ROWS;
  first_quad = workgroup.x * (TILE_COLUMNS / 4u);
  var sums = multiply_tile(first_row, params.rows - 1u, thread, subgroup);
  for (var strip = 0u; strip < ROW_MATRICES; strip++) {
    store_strip(&sums, strip, subgroup);
    workgroupBarrier(); // the strip is complete
    for (var i = 0u; i < STRIP_LOADS; i++) {
      let place = strip_place(strip, i, thread);
      let row = first_row + place.x;
      let column = first_quad + place.y;
      if (row < params.rows && column < params.n_quads) {
        finish(row, column, strip_sum(i, thread) + bias[column]);
      }
    }
    workgroupBarrier(); // the strip was read
  }
}
