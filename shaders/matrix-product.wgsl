enable chromium_experimental_subgroup_matrix;
enable f16;
enable subgroups;
// Part: a tile of a matrix product by subgroup matrices (tensor cores): f16 × f16, added up in f32.
//
// A workgroup owns TILE_ROWS × TILE_COLUMNS outputs. Step by step over k it stages a tile of x, as halves, and one of w in
// workgroup memory; each of its subgroups multiplies a part of them, 16 × 16 × 16 at a time. What costs is waiting for loads,
// so those of the next steps are always on their way in registers. There are two stages, taken in turn: who stores into one
// has seen the barrier that all pass when they are done with it, so one barrier a step is enough.
//
// The order of a sum: k is cut into four chains of whole steps, of one length; each is a chain of such products with k
// ascending, and the chains are added in order. Small tiles have GROUPS of subgroups that take a chain each at the same time,
// large ones take one after the other. So a row has the same bits in a tile of any size, and whatever rows are beside it.
// Subgroups must be of 32 threads.
//
// The kernel chooses the sizes (matrix-tile-….wgsl) and how x is stored (matrix-x-….wgsl), binds x [rows, K] and w, and has the
// params depth (K) and k_quads. They are no constants of the pipeline: drivers would unroll the loop over k, and take seconds to
// compile it. It declares
//   fetch_w(i, k, thread) -> Packed4     load i of a thread of a group: its quad of w's tile that begins at k; zero outside of w
//   w_place(i, thread) -> u32            where that quad goes in the tile, which takes W_QUADS
//   w_matrix(at, k, column) -> Right     16 × 16 of the staged tile that begins at `at`

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Result = subgroup_matrix_result<f32, 16, 16>;

const TILE_DEPTH = 32u; // k of a step
const CHAINS = 4u;
const STEPS_AHEAD = 4u; // sets of registers for loads

const GROUP_SUBGROUPS = SUBGROUP_ROWS * SUBGROUP_COLUMNS;
const GROUP_THREADS = 32u * GROUP_SUBGROUPS;
const THREADS = GROUP_THREADS * GROUPS;
const ROW_MATRICES = TILE_ROWS / SUBGROUP_ROWS / 16u;          // of a subgroup
const COLUMN_MATRICES = TILE_COLUMNS / SUBGROUP_COLUMNS / 16u;

// In quads (four halves). Rows are padded by two, so that rows below one another begin in different banks.
const X_STRIDE = TILE_DEPTH / 4u + 2u;
const X_QUADS = TILE_ROWS * X_STRIDE;
const STAGE_QUADS = X_QUADS + W_QUADS;

const X_LOADS = TILE_ROWS * TILE_DEPTH / 4u / GROUP_THREADS;
const W_LOADS = TILE_COLUMNS * TILE_DEPTH / 4u / GROUP_THREADS;

// What a thread loads of both tiles for a step.
struct Loads {
  x: array<RowQuad, X_LOADS>,
  w: array<Packed4, W_LOADS>,
}

// What a thread's loads depend on.
struct Own {
  first_row: u32,
  last_row: u32, // rows past it are computed from this one
  begin: u32,    // k with which its group's chain begins
  thread: u32,   // of the group
}

alias Sums = array<array<Result, COLUMN_MATRICES>, ROW_MATRICES>; // of a subgroup

// A thread cannot see a matrix's elements, so results go through workgroup memory, in strips of 16 rows of each subgroup.
const STRIP_ROWS = 16u * SUBGROUP_ROWS;
const STRIP_QUADS = STRIP_ROWS * TILE_COLUMNS / 4u; // quads of floats, two elements of `stages` each
const STRIP_TOTALS = (STRIP_QUADS + THREADS - 1u) / THREADS;

alias Totals = array<vec4f, STRIP_TOTALS * ROW_MATRICES>; // of a thread: quads of the product

var<workgroup> stages: array<vec2u, GROUPS * 2u * STAGE_QUADS>; // two of each group; in each x's tile, then w's

// The product of the rows from first_row on and the tile of w.
fn multiply_tile(first_row: u32, last_row: u32, thread: u32, subgroup: u32) -> Totals {
  let group = subgroup / GROUP_SUBGROUPS;
  let member = subgroup % GROUP_SUBGROUPS;
  let first_stage = group * 2u * STAGE_QUADS;
  let second_stage = first_stage + STAGE_QUADS;
  let length = (params.depth + CHAINS * TILE_DEPTH - 1u) / (CHAINS * TILE_DEPTH) * TILE_DEPTH;
  var totals: Totals;
  for (var chain = 0u; chain < CHAINS; chain += GROUPS) {
    // 1. A chain of each group.
    let own = Own(first_row, last_row, (chain + group) * length, thread % GROUP_THREADS);
    var sums: Sums;
    var a = fetch(0u, own);
    var b = fetch(TILE_DEPTH, own);
    var c = fetch(2u * TILE_DEPTH, own);
    var d = fetch(3u * TILE_DEPTH, own);
    for (var k = 0u; k < length; k += STEPS_AHEAD * TILE_DEPTH) {
      advance(k, length, first_stage, &a, own, member, &sums);
      advance(k + TILE_DEPTH, length, second_stage, &b, own, member, &sums);
      advance(k + 2u * TILE_DEPTH, length, first_stage, &c, own, member, &sums);
      advance(k + 3u * TILE_DEPTH, length, second_stage, &d, own, member, &sums);
    }
    workgroupBarrier(); // the stages are free

    // 2. The chains are added, strip by strip.
    for (var strip = 0u; strip < ROW_MATRICES; strip++) {
      store_strip(&sums, strip, group, member);
      workgroupBarrier(); // the strip is complete
      for (var i = 0u; i < STRIP_TOTALS; i++) {
        let at = strip * STRIP_TOTALS + i;
        for (var g = 0u; g < GROUPS; g++) {
          let sum = strip_sum(g, min(i * THREADS + thread, STRIP_QUADS - 1u));
          totals[at] = select(totals[at] + sum, sum, chain + g == 0u);
        }
      }
      workgroupBarrier(); // the strip was read
    }
  }
  return totals;
}

// The step at k of a chain, in the stage at `at`: what was loaded for it is stored and multiplied, and the loads of a later step
// set out.
fn advance(
  k: u32,
  length: u32,
  at: u32,
  loads: ptr<function, Loads>,
  own: Own,
  member: u32,
  sums: ptr<function, Sums>,
) {
  if (k < length) {
    store(at, loads, own.thread);
    workgroupBarrier(); // the stage is complete
    if (k + STEPS_AHEAD * TILE_DEPTH < length) {
      *loads = fetch(k + STEPS_AHEAD * TILE_DEPTH, own);
    }
    multiply_stage(at, member, sums);
  }
}

// Ask for what the step at k of a chain needs: zeros past K.
fn fetch(k: u32, own: Own) -> Loads {
  var loads: Loads;
  for (var i = 0u; i < X_LOADS; i++) {
    let quad = i * GROUP_THREADS + own.thread;
    let row = min(own.first_row + quad / (TILE_DEPTH / 4u), own.last_row);
    let column = (own.begin + k) / 4u + quad % (TILE_DEPTH / 4u);
    let value = x[row * params.k_quads + min(column, params.k_quads - 1u)];
    loads.x[i] = select(RowQuad(), value, column < params.k_quads);
  }
  for (var i = 0u; i < W_LOADS; i++) {
    loads.w[i] = fetch_w(i, own.begin + k, own.thread);
  }
  return loads;
}

// Put what has arrived into the stage at `at`.
fn store(at: u32, loads: ptr<function, Loads>, thread: u32) {
  for (var i = 0u; i < X_LOADS; i++) {
    let quad = i * GROUP_THREADS + thread;
    stages[at + quad / (TILE_DEPTH / 4u) * X_STRIDE + quad % (TILE_DEPTH / 4u)] = halves_of((*loads).x[i]);
  }
  for (var i = 0u; i < W_LOADS; i++) {
    stages[at + X_QUADS + w_place(i, thread)] = (*loads).w[i];
  }
}

// Add a subgroup's products of a stage, k ascending.
fn multiply_stage(at: u32, member: u32, sums: ptr<function, Sums>) {
  let first_row = member / SUBGROUP_COLUMNS * ROW_MATRICES * 16u;
  let first_column = member % SUBGROUP_COLUMNS * COLUMN_MATRICES * 16u;
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

// A subgroup's part of a strip goes where its group's strip lies.
fn store_strip(sums: ptr<function, Sums>, strip: u32, group: u32, member: u32) {
  let row = member / SUBGROUP_COLUMNS * 16u;
  let column = member % SUBGROUP_COLUMNS * COLUMN_MATRICES * 16u;
  for (var c = 0u; c < COLUMN_MATRICES; c++) {
    let at = 2u * group * STRIP_QUADS + (row * TILE_COLUMNS + column + c * 16u) / 2u;
    subgroupMatrixStore<row_major>(&stages, at, (*sums)[strip][c], TILE_COLUMNS / 2u);
  }
}

fn strip_sum(group: u32, quad: u32) -> vec4f {
  let at = 2u * (group * STRIP_QUADS + quad);
  return bitcast<vec4f>(vec4u(stages[at], stages[at + 1u]));
}

// Row and quad of columns, within the tile, of total `at` of a thread; a row past the tile where there is none.
fn total_place(at: u32, thread: u32) -> vec2u {
  let strip = at / STRIP_TOTALS;
  let quad = at % STRIP_TOTALS * THREADS + thread;
  let row = quad / (TILE_COLUMNS / 4u);
  let tile_row = row / 16u * ROW_MATRICES * 16u + strip * 16u + row % 16u;
  return vec2u(select(0xffffffffu, tile_row, quad < STRIP_QUADS), quad % (TILE_COLUMNS / 4u));
}
