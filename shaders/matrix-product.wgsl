enable chromium_experimental_subgroup_matrix;
enable f16;
enable subgroups;
// Part: a tile of a matrix product by subgroup matrices (tensor cores): f16 × f16, added up in f32.
//
// A workgroup owns TILE_ROWS × TILE_COLUMNS outputs. Step by step over k it stages a tile of x, rounded to halves, and one of
// w in workgroup memory; each of its subgroups multiplies a part of them, 16 × 16 × 16 at a time. What costs is waiting for
// loads, so those of the next two steps are always on their way in registers. There are two stages, taken in turn: who stores
// into one has seen the barrier that all pass when they are done with it, so one barrier a step is enough.
//
// The sum over k is one chain of such products in ascending order. So a row has the same bits in a tile of any size, and
// whatever rows are beside it. Subgroups must be of 32 threads.
//
// The kernel chooses the sizes (matrix-tile-….wgsl) and how x is stored (matrix-x-….wgsl), binds x [rows, K] and w, and has the params depth (K) and k_quads. They are
// no constants of the pipeline: drivers would unroll the loop over k, and take seconds to compile it. It declares
//   fetch_w(i, k, thread) -> Packed4     load i of a thread: its quad of w's tile that begins at k; zero outside of w
//   w_place(i, thread) -> u32            where that quad goes in the tile, which takes W_QUADS
//   w_matrix(at, k, column) -> Right     16 × 16 of the staged tile that begins at `at`

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Result = subgroup_matrix_result<f32, 16, 16>;

const THREADS = 32u * SUBGROUP_ROWS * SUBGROUP_COLUMNS;
const ROW_MATRICES = TILE_ROWS / SUBGROUP_ROWS / 16u;          // of a subgroup
const COLUMN_MATRICES = TILE_COLUMNS / SUBGROUP_COLUMNS / 16u;

// In quads (four halves). Rows are padded by two, so that rows below one another begin in different banks.
const X_STRIDE = TILE_DEPTH / 4u + 2u;
const X_QUADS = TILE_ROWS * X_STRIDE;
const STAGE_QUADS = X_QUADS + W_QUADS;

const X_LOADS = TILE_ROWS * TILE_DEPTH / 4u / THREADS;
const W_LOADS = TILE_COLUMNS * TILE_DEPTH / 4u / THREADS;

// What a thread loads of both tiles for a step.
struct Loads {
  x: array<RowQuad, X_LOADS>,
  w: array<Packed4, W_LOADS>,
}

alias Sums = array<array<Result, COLUMN_MATRICES>, ROW_MATRICES>; // of a subgroup

var<workgroup> stages: array<vec2u, 2u * STAGE_QUADS>; // of each, x's tile, then w's

// The product of the rows from first_row on and the tile of w. Rows past `last_row` are computed from that one.
fn multiply_tile(first_row: u32, last_row: u32, thread: u32, subgroup: u32) -> Sums {
  var sums: Sums;
  var even = fetch(0u, first_row, last_row, thread);
  var odd = fetch(TILE_DEPTH, first_row, last_row, thread);
  for (var k = 0u; k < params.depth; k += 2u * TILE_DEPTH) {
    store(0u, &even, thread);
    workgroupBarrier(); // the first stage is complete
    even = fetch(k + 2u * TILE_DEPTH, first_row, last_row, thread);
    multiply_stage(0u, subgroup, &sums);

    store(STAGE_QUADS, &odd, thread);
    workgroupBarrier(); // the second stage is complete
    odd = fetch(k + 3u * TILE_DEPTH, first_row, last_row, thread);
    multiply_stage(STAGE_QUADS, subgroup, &sums);
  }
  workgroupBarrier(); // the stages are free: strips go through them
  return sums;
}

// Ask for what the step at k needs: zeros past K.
fn fetch(k: u32, first_row: u32, last_row: u32, thread: u32) -> Loads {
  var loads: Loads;
  for (var i = 0u; i < X_LOADS; i++) {
    let quad = i * THREADS + thread;
    let row = min(first_row + quad / (TILE_DEPTH / 4u), last_row);
    let column = k / 4u + quad % (TILE_DEPTH / 4u);
    let value = x[row * params.k_quads + min(column, params.k_quads - 1u)];
    loads.x[i] = select(RowQuad(), value, column < params.k_quads);
  }
  for (var i = 0u; i < W_LOADS; i++) {
    loads.w[i] = fetch_w(i, k, thread);
  }
  return loads;
}

// Put what has arrived into the stage at `at`.
fn store(at: u32, loads: ptr<function, Loads>, thread: u32) {
  for (var i = 0u; i < X_LOADS; i++) {
    let quad = i * THREADS + thread;
    stages[at + quad / (TILE_DEPTH / 4u) * X_STRIDE + quad % (TILE_DEPTH / 4u)] = halves_of((*loads).x[i]);
  }
  for (var i = 0u; i < W_LOADS; i++) {
    stages[at + X_QUADS + w_place(i, thread)] = (*loads).w[i];
  }
}

// Add a subgroup's products of a stage, k ascending.
fn multiply_stage(at: u32, subgroup: u32, sums: ptr<function, Sums>) {
  let first_row = subgroup / SUBGROUP_COLUMNS * ROW_MATRICES * 16u;
  let first_column = subgroup % SUBGROUP_COLUMNS * COLUMN_MATRICES * 16u;
  for (var k = 0u; k < TILE_DEPTH; k += 16u) {
    var left: array<Left, ROW_MATRICES>;
    for (var r = 0u; r < ROW_MATRICES; r++) {
      let row = first_row + r * 16u;
      left[r] = subgroupMatrixLoad<Left, row_major>(&stages, at + row * X_STRIDE + k / 4u, X_STRIDE);
    }
    for (var c = 0u; c < COLUMN_MATRICES; c++) {
      let right = w_matrix(at + X_QUADS, k, first_column + c * 16u);
      for (var r = 0u; r < ROW_MATRICES; r++) {
        (*sums)[r][c] = subgroupMatrixMultiplyAccumulate(left[r], right, (*sums)[r][c]);
      }
    }
  }
}

// A thread cannot see a matrix's elements, so results go through workgroup memory, in strips of 16 rows of each subgroup.
const STRIP_ROWS = 16u * SUBGROUP_ROWS;
const STRIP_LOADS = STRIP_ROWS * TILE_COLUMNS / 4u / THREADS;

fn store_strip(sums: ptr<function, Sums>, strip: u32, subgroup: u32) {
  let row = subgroup / SUBGROUP_COLUMNS * 16u;
  let column = subgroup % SUBGROUP_COLUMNS * COLUMN_MATRICES * 16u;
  for (var c = 0u; c < COLUMN_MATRICES; c++) {
    let at = (row * TILE_COLUMNS + column + c * 16u) / 2u; // an element of `stages` holds two floats
    subgroupMatrixStore<row_major>(&stages, at, (*sums)[strip][c], TILE_COLUMNS / 2u);
  }
}

// Row and quad of columns, within the tile, of a thread's element i of a strip.
fn strip_place(strip: u32, i: u32, thread: u32) -> vec2u {
  let quad = i * THREADS + thread;
  let row = quad / (TILE_COLUMNS / 4u);
  return vec2u(row / 16u * ROW_MATRICES * 16u + strip * 16u + row % 16u, quad % (TILE_COLUMNS / 4u));
}

fn strip_sum(i: u32, thread: u32) -> vec4f {
  let at = 2u * (i * THREADS + thread);
  return bitcast<vec4f>(vec4u(stages[at], stages[at + 1u]));
}
