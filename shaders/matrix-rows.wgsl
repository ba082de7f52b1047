// Part: matrix-product.wgsl for w [K, N] as GPT-2's Conv1D stores it, with bias [1, N]. The kernel has the params rows and n_octs
// too, and defines finish(row, column, value): what becomes of a quad of columns that has its bias.

// w's tile lies in workgroup memory as in w: a row for each k.
const ROW_OCTS = TILE_COLUMNS / 8u;
const W_STRIDE = ROW_OCTS + 1u;
const W_OCTS = TILE_DEPTH * W_STRIDE;

var<private> first_oct: u32; // of columns

fn fetch_w(i: u32, k: u32, thread: u32) -> vec4u {
  let oct = i * THREADS + thread;
  let row = k + oct / ROW_OCTS;
  let column = min(first_oct + oct % ROW_OCTS, params.n_octs - 1u);
  return w[min(row, params.depth - 1u) * params.n_octs + column];
}

fn is_w(i: u32, k: u32, thread: u32) -> bool {
  return k + (i * THREADS + thread) / ROW_OCTS < params.depth;
}

fn w_place(i: u32, thread: u32) -> u32 {
  let oct = i * THREADS + thread;
  return oct / ROW_OCTS * W_STRIDE + oct % ROW_OCTS;
}

fn w_matrix(k: u32, column: u32) -> Right {
  return subgroupMatrixLoad<Right, row_major>(&stage, X_OCTS + k * W_STRIDE + column / 8u, W_STRIDE);
}

// A workgroup's tile of the product, and `finish` for each of its quads.
fn multiply_rows(workgroup: vec2u, thread: u32, subgroup: u32) {
  let first_row = workgroup.y * TILE_ROWS;
  first_oct = workgroup.x * ROW_OCTS;
  var sums = multiply_tile(first_row, params.rows - 1u, thread, subgroup);
  finish_sums(&sums, first_row, thread, subgroup);
}

// A strip that is in workgroup memory.
fn finish_strip(strip: u32, first_row: u32, thread: u32) {
  workgroupBarrier(); // the strip is complete
  for (var i = 0u; i < STRIP_LOADS; i++) {
    let place = strip_place(strip, i, thread);
    let row = first_row + place.x;
    let column = 2u * first_oct + place.y;
    if (row < params.rows && column < 2u * params.n_octs) {
      finish(row, column, strip_sum(i, thread) + bias[column]);
    }
  }
  workgroupBarrier(); // the strip was read
}
