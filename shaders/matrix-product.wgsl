enable chromium_experimental_subgroup_matrix;
enable f16;
enable subgroups;
// Part: a tile of a matrix product by subgroup matrices (tensor cores): f16 × f16, added up in f32.
//
// A workgroup owns TILE_ROWS × TILE_COLUMNS outputs. Step by step over k it stages a tile of x, rounded to halves, and one of
// w in workgroup memory; each of its subgroups multiplies a part of them, 16 × 16 × 16 at a time. The loads of the next step are on
// their way in registers meanwhile. One stage is enough, and faster than two taken in turn: a workgroup multiplies while another on
// the same processor waits at a barrier (docs/matmul.md).
//
// The sum over k is one chain of such products in ascending order. So a row has the same bits in a tile of any size, and
// whatever rows are beside it. Subgroups must be of 32 threads; K and w's columns are multiples of 8, since eight halves, an oct, are
// loaded and stored at once: 16 bytes, so that rows of the tiles begin where the hardware loads matrices fastest.
//
// The kernel chooses the sizes (matrix-tile-….wgsl), the sums of a subgroup (matrix-sums-….wgsl) and how x is stored
// (matrix-x-….wgsl), binds x [rows, K] and w, and has the params depth (K) and k_octs. They are no constants of the pipeline:
// drivers would unroll the loop over k, and take seconds to compile it. It declares
//   fetch_w(i, k, thread) -> vec4u       load i of a thread: its oct of w's tile that begins at k, or of any other outside of w
//   is_w(i, k, thread) -> bool           is it in w?
//   w_place(i, thread) -> u32            where that oct goes in the tile, which takes W_OCTS
//   w_matrix(k, column) -> Right         16 × 16 of the staged tile

alias Oct = vec4u; // eight halves

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Result = subgroup_matrix_result<f32, 16, 16>;

const THREADS = 32u * SUBGROUP_ROWS * SUBGROUP_COLUMNS;

// In octs. Rows are padded by one, so that rows below one another begin in different banks.
const DEPTH_OCTS = TILE_DEPTH / 8u;
const X_STRIDE = DEPTH_OCTS + 1u;
const X_OCTS = TILE_ROWS * X_STRIDE;

const X_LOADS = TILE_ROWS * DEPTH_OCTS / THREADS;
const W_LOADS = TILE_COLUMNS * DEPTH_OCTS / THREADS;

// What a thread loads of both tiles for a step, as it comes: whoever looks at a value waits for it, so that is for `store`.
struct Loads {
  x: array<RowOct, X_LOADS>,
  w: array<vec4u, W_LOADS>,
}

// Sums leave through the same memory, in strips of 16 rows of each subgroup: four floats take the place of an oct.
const STRIP_STRIDE = TILE_COLUMNS / 4u + 1u;
const STRIP_QUADS = 16u * SUBGROUP_ROWS * STRIP_STRIDE;
const STRIP_LOADS = 16u * SUBGROUP_ROWS * TILE_COLUMNS / 4u / THREADS;

var<workgroup> stage: array<vec4u, max(X_OCTS + W_OCTS, STRIP_QUADS)>; // x's tile, then w's

// The product of the rows from first_row on and the tile of w. Rows past `last_row` are computed from that one.
fn multiply_tile(first_row: u32, last_row: u32, thread: u32, subgroup: u32) -> Sums {
  let row = subgroup / SUBGROUP_COLUMNS * ROW_MATRICES * 16u;
  let column = subgroup % SUBGROUP_COLUMNS * COLUMN_MATRICES * 16u;
  var sums: Sums;
  var loads = fetch(0u, first_row, last_row, thread);
  for (var k = 0u; k < params.depth; k += TILE_DEPTH) {
    workgroupBarrier(); // the stage is free: all have multiplied what was in it
    store(&loads, k, thread);
    workgroupBarrier(); // the stage is complete
    loads = fetch(k + TILE_DEPTH, first_row, last_row, thread);
    multiply_stage(row, column, &sums);
  }
  workgroupBarrier(); // the stage is free: strips go through it
  return sums;
}

// Ask for what the step at k needs.
fn fetch(k: u32, first_row: u32, last_row: u32, thread: u32) -> Loads {
  var loads: Loads;
  for (var i = 0u; i < X_LOADS; i++) {
    let oct = i * THREADS + thread;
    let row = min(first_row + oct / DEPTH_OCTS, last_row);
    let column = k / 8u + oct % DEPTH_OCTS;
    loads.x[i] = x_oct(row * params.k_octs + min(column, params.k_octs - 1u));
  }
  for (var i = 0u; i < W_LOADS; i++) {
    loads.w[i] = fetch_w(i, k, thread);
  }
  return loads;
}

// Put what has arrived for the step at k into the stage, zeros for what is outside of x and w.
fn store(loads: ptr<function, Loads>, k: u32, thread: u32) {
  for (var i = 0u; i < X_LOADS; i++) {
    let oct = i * THREADS + thread;
    let is_x = k / 8u + oct % DEPTH_OCTS < params.k_octs;
    stage[oct / DEPTH_OCTS * X_STRIDE + oct % DEPTH_OCTS] = select(vec4u(), halves_of((*loads).x[i]), is_x);
  }
  for (var i = 0u; i < W_LOADS; i++) {
    stage[X_OCTS + w_place(i, thread)] = select(vec4u(), (*loads).w[i], is_w(i, k, thread));
  }
}

fn x_matrix(k: u32, row: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&stage, row * X_STRIDE + k / 8u, X_STRIDE);
}

// A thread cannot see a matrix's elements, so results go through workgroup memory, in strips of 16 rows of each subgroup.
fn place_sums(sums: Result, row: u32, column: u32) {
  subgroupMatrixStore<row_major>(&stage, row * STRIP_STRIDE + column / 4u, sums, STRIP_STRIDE);
}

// Row and quad of columns, within the tile, of a thread's element i of a strip.
fn strip_place(strip: u32, i: u32, thread: u32) -> vec2u {
  let quad = i * THREADS + thread;
  let row = quad / (TILE_COLUMNS / 4u);
  return vec2u(row / 16u * ROW_MATRICES * 16u + strip * 16u + row % 16u, quad % (TILE_COLUMNS / 4u));
}

fn strip_sum(i: u32, thread: u32) -> vec4f {
  let quad = i * THREADS + thread;
  return bitcast<vec4f>(stage[quad / (TILE_COLUMNS / 4u) * STRIP_STRIDE + quad % (TILE_COLUMNS / 4u)]);
}
