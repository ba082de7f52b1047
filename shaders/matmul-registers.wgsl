// with storage-f32.wgsl | storage-f16.wgsl | storage-i8.wgsl
// with activation.wgsl
// with product.wgsl
// with register-tile-64.wgsl | register-tile-128.wgsl
//
// matmul.wgsl with tiles in registers:  y[r, n] = epilogue(Σ_k x[r, k] · w[k, n] + bias[n])
//
// A workgroup owns TILE_ROWS × TILE_COLUMNS outputs, and a thread so many of them that workgroup memory keeps pace: with
// 8 × 8 it multiplies 64 times for four vec4s that it reads there. The loads of the next step are on their way in registers
// while this one is multiplied. There are two stages, taken in turn: who stores into one has seen the barrier that all pass
// when they are done with it, so one barrier a step is enough.
//
// The order of the sum is that of product.wgsl: three levels of sums, all in registers. The depth is a param, since drivers
// would unroll the loop over k and take seconds to compile it.
//
//   dispatch  [ceil(N / TILE_COLUMNS), ceil(rows / TILE_ROWS)]
//   x         [rows, K]  f32
//   w         [K, N]     as GPT-2's Conv1D stores it
//   bias      [1, N]     f32, and a second row of scales for w in bytes
//   residual  [rows, N]  f32, read when EPILOGUE is ADD_RESIDUAL
//   y         [rows, N]  f32

const THREADS = ROW_THREADS * COLUMN_THREADS;
const DEPTH_QUADS = TILE_DEPTH / 4u;
const SHARE_STEPS = SHARE_QUADS / DEPTH_QUADS;
const GROUP_STEPS = SHARE_STEPS * GROUP_SHARES;

// What a thread computes: rows × quads of columns.
const ROWS = TILE_ROWS / ROW_THREADS;
const COLUMN_BLOCKS = TILE_COLUMNS / 4u / COLUMN_THREADS;
const BLOCKS = ROWS * COLUMN_BLOCKS;

// How threads lie in a tile, 32 by 32.
const LANE_COLUMNS = 8u;
const LANE_ROWS = 32u / LANE_COLUMNS;

// What a thread loads for a step, in quads.
const X_LOADS = TILE_ROWS * DEPTH_QUADS / THREADS;
const W_LOADS = TILE_DEPTH * TILE_COLUMNS / 4u / THREADS;

// A stage is x's tile, [TILE_ROWS][DEPTH_QUADS], then w's, [TILE_DEPTH][W_STRIDE], both as they lie in memory: threads side
// by side store side by side. x need not be transposed: a thread reads four values of k of a row at once.
const W_STRIDE = TILE_COLUMNS / 4u;
const X_QUADS = TILE_ROWS * DEPTH_QUADS;
const STAGE_QUADS = X_QUADS + TILE_DEPTH * W_STRIDE;

const_assert SHARE_STEPS * DEPTH_QUADS == SHARE_QUADS;
const_assert X_LOADS * THREADS == TILE_ROWS * DEPTH_QUADS;
const_assert W_LOADS * THREADS == TILE_DEPTH * W_STRIDE;
const_assert ROWS * ROW_THREADS == TILE_ROWS && COLUMN_BLOCKS * COLUMN_THREADS == W_STRIDE;
const_assert COLUMN_THREADS % LANE_COLUMNS == 0u && ROW_THREADS % LANE_ROWS == 0u;

struct Params {
  rows: u32,
  depth: u32,   // K
  k_quads: u32, // vec4s in a row of x
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<Packed4>;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;
@group(0) @binding(4) var<storage, read> residual: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4f>;

struct Loads {
  x: array<vec4f, X_LOADS>,
  w: array<Packed4, W_LOADS>,
}

alias Sums = array<vec4f, BLOCKS>; // of row r and quad of columns c of a thread: r · COLUMN_BLOCKS + c

var<workgroup> stages: array<vec4f, 2u * STAGE_QUADS>;

// Ask for what a step needs. Past K both tiles are zero; past the last row and the last column those stand in, and what is
// computed with them is never stored.
fn fetch(step: u32, workgroup: vec2u, thread: u32) -> Loads {
  var loads: Loads;
  for (var i = 0u; i < X_LOADS; i++) {
    let at = i * THREADS + thread;
    let row = min(workgroup.y * TILE_ROWS + at / DEPTH_QUADS, params.rows - 1u);
    let quad = step * DEPTH_QUADS + at % DEPTH_QUADS;
    let value = x[row * params.k_quads + min(quad, params.k_quads - 1u)];
    loads.x[i] = select(vec4f(), value, quad < params.k_quads);
  }
  for (var i = 0u; i < W_LOADS; i++) {
    let at = i * THREADS + thread;
    let k = step * TILE_DEPTH + at / W_STRIDE;
    let column = min(workgroup.x * W_STRIDE + at % W_STRIDE, N_QUADS - 1u);
    loads.w[i] = select(Packed4(), w[min(k, params.depth - 1u) * N_QUADS + column], k < params.depth);
  }
  return loads;
}

// Put what has arrived into the stage that begins at `stage`.
fn store(stage: u32, loads: ptr<function, Loads>, thread: u32) {
  for (var i = 0u; i < X_LOADS; i++) {
    stages[stage + i * THREADS + thread] = (*loads).x[i];
  }
  for (var i = 0u; i < W_LOADS; i++) {
    stages[stage + X_QUADS + i * THREADS + thread] = unpack4((*loads).w[i]);
  }
}

// Add a stage's products to a thread's shares, four values of k at a time. `own` is the thread's column and row.
fn multiply(stage: u32, own: vec2u, shares: ptr<function, Sums>) {
  for (var quad = 0u; quad < DEPTH_QUADS; quad++) {
    var weights: array<vec4f, 4u * COLUMN_BLOCKS>; // [k][quad of columns]
    for (var k = 0u; k < 4u; k++) {
      for (var c = 0u; c < COLUMN_BLOCKS; c++) {
        let at = (quad * 4u + k) * W_STRIDE + c * COLUMN_THREADS + own.x;
        weights[k * COLUMN_BLOCKS + c] = stages[stage + X_QUADS + at];
      }
    }
    for (var r = 0u; r < ROWS; r++) {
      let xs = stages[stage + (r * ROW_THREADS + own.y) * DEPTH_QUADS + quad];
      for (var c = 0u; c < COLUMN_BLOCKS; c++) {
        let at = r * COLUMN_BLOCKS + c;
        let sum = fma(xs.yyyy, weights[COLUMN_BLOCKS + c], fma(xs.xxxx, weights[c], (*shares)[at]));
        (*shares)[at] = fma(xs.wwww, weights[3u * COLUMN_BLOCKS + c], fma(xs.zzzz, weights[2u * COLUMN_BLOCKS + c], sum));
      }
    }
  }
}

fn finish(row: u32, column: u32, sum: vec4f, after: Finish) {
  if (row >= params.rows || column >= N_QUADS) {
    return;
  }
  let at = row * N_QUADS + column;
  var value = activate(biased(sum, after));
  if (EPILOGUE == ADD_RESIDUAL) {
    value += residual[at];
  }
  y[at] = value;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  // 1. Which outputs are this thread's. 32 threads, which a GPU runs together, lie in LANE_COLUMNS columns and as few rows:
  //    in a square they read the fewest different quads. Rows and quads of columns of a thread are as far apart as there are
  //    threads, so what neighbours read at once are neighbours too, in different banks of workgroup memory.
  let lane = thread % 32u;
  let block = thread / 32u;
  const ACROSS = COLUMN_THREADS / LANE_COLUMNS;
  let own = vec2u(block % ACROSS * LANE_COLUMNS + lane % LANE_COLUMNS, block / ACROSS * LANE_ROWS + lane / LANE_COLUMNS);

  // 2. Step by step along k.
  var totals: Sums;
  var groups: Sums;
  var shares: Sums;
  let steps = (params.depth + TILE_DEPTH - 1u) / TILE_DEPTH;
  var stage = 0u;
  var loads = fetch(0u, workgroup.xy, thread);
  for (var step = 0u; step < steps; step++) {
    store(stage, &loads, thread);
    workgroupBarrier(); // this stage is complete, and all are done with the other one
    loads = fetch(step + 1u, workgroup.xy, thread); // past K in the last step: zeros, never stored
    multiply(stage, own, &shares);
    stage = STAGE_QUADS - stage;

    // Shares to groups, groups to totals.
    let ends = step + 1u == steps;
    if (ends || (step + 1u) % SHARE_STEPS == 0u) {
      for (var i = 0u; i < BLOCKS; i++) {
        groups[i] += shares[i];
        shares[i] = vec4f();
      }
    }
    if (ends || (step + 1u) % GROUP_STEPS == 0u) {
      for (var i = 0u; i < BLOCKS; i++) {
        totals[i] += groups[i];
        groups[i] = vec4f();
      }
    }
  }

  // 3. Bias, epilogue, store.
  for (var c = 0u; c < COLUMN_BLOCKS; c++) {
    let column = workgroup.x * W_STRIDE + c * COLUMN_THREADS + own.x;
    let after = finish_of(min(column, N_QUADS - 1u));
    for (var r = 0u; r < ROWS; r++) {
      finish(workgroup.y * TILE_ROWS + r * ROW_THREADS + own.y, column, totals[r * COLUMN_BLOCKS + c], after);
    }
  }
}
