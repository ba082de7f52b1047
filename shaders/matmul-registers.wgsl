// with storage-f32.wgsl | storage-f16.wgsl | storage-i8.wgsl
// with activation.wgsl
// with product.wgsl
// with register-tile-64x64.wgsl | register-tile-32x32.wgsl | register-tile-64x128.wgsl
//
// matmul.wgsl with tiles in registers:  y[r, n] = epilogue(Σ_k x[r, k] · w[k, n] + bias[n])
//
// A workgroup owns TILE_ROWS × TILE_COLUMNS outputs, and a thread so many of them that workgroup memory keeps pace: with
// 8 × 8 it multiplies 64 times for four vec4s that it reads there. The loads of the next step are on their way in registers
// while this one is multiplied. There are two stages, taken in turn: who stores into one has seen the barrier that all pass
// when they are done with it, so one barrier a step is enough.
//
// The sum is one chain of fma along k, as in matmul-naive.wgsl and matmul-tiles.wgsl, so all three give the same bits: the
// shares and groups of product.wgsl would take three times the registers. The depth is a param, since drivers would unroll
// the loop over k and take seconds to compile it.
//
//   dispatch  [ceil(N / TILE_COLUMNS), ceil(rows / TILE_ROWS)]
//   x         [rows, K]  f32
//   w         [K, N]     as GPT-2's Conv1D stores it
//   bias      [1, N]     f32, and a second row of scales for w in bytes
//   residual  [rows, N]  f32, read when EPILOGUE is ADD_RESIDUAL
//   y         [rows, N]  f32

const THREADS = ROW_THREADS * COLUMN_THREADS;
const DEPTH_QUADS = TILE_DEPTH / 4u;

// What a thread computes: rows × quads of columns.
const ROWS = TILE_ROWS / ROW_THREADS;
const QUADS = TILE_COLUMNS / 4u / COLUMN_THREADS;

// What a thread loads for a step, in quads.
const X_LOADS = TILE_ROWS * DEPTH_QUADS / THREADS;
const W_LOADS = TILE_DEPTH * TILE_COLUMNS / 4u / THREADS;

// A stage is x's tile, [TILE_ROWS][X_STRIDE], then w's, [TILE_DEPTH][W_STRIDE], both as they lie in memory. x need not be
// transposed: a thread reads four values of k of a row at once. Its rows are one quad longer than the step is deep, so that
// neighbours begin in different banks.
const X_STRIDE = DEPTH_QUADS + 1u;
const W_STRIDE = TILE_COLUMNS / 4u;
const X_QUADS = TILE_ROWS * X_STRIDE;
const STAGE_QUADS = X_QUADS + TILE_DEPTH * W_STRIDE;

const_assert X_LOADS * THREADS == TILE_ROWS * DEPTH_QUADS;
const_assert W_LOADS * THREADS == TILE_DEPTH * W_STRIDE;
const_assert ROWS * ROW_THREADS == TILE_ROWS && QUADS * COLUMN_THREADS == W_STRIDE;

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

alias XLoads = array<vec4f, X_LOADS>;
alias WLoads = array<Packed4, W_LOADS>;
alias Weights = array<vec4f, QUADS>;

var<workgroup> stages: array<vec4f, 2u * STAGE_QUADS>;

// Ask for what the step that begins at `k` needs. Past the last row and the last column those stand in, and what is computed with
// them is never stored. Nobody looks at a value before `store` does: who does waits for it.
fn fetch_x(k: u32, first_row: u32, thread: u32) -> XLoads {
  var loads: XLoads;
  for (var i = 0u; i < X_LOADS; i++) {
    let at = i * THREADS + thread;
    let row = min(first_row + at / DEPTH_QUADS, params.rows - 1u);
    let quad = k / 4u + at % DEPTH_QUADS;
    loads[i] = x[row * params.k_quads + min(quad, params.k_quads - 1u)];
  }
  return loads;
}

fn fetch_w(k: u32, first_quad: u32, thread: u32) -> WLoads {
  var loads: WLoads;
  for (var i = 0u; i < W_LOADS; i++) {
    let at = i * THREADS + thread;
    let row = k + at / W_STRIDE;
    let quad = min(first_quad + at % W_STRIDE, N_QUADS - 1u);
    loads[i] = w[min(row, params.depth - 1u) * N_QUADS + quad];
  }
  return loads;
}

// Put what has arrived for the step at `k` into the stage that begins at `stage`; weights are unpacked on the way. Past K both tiles
// are zero.
fn store(stage: u32, k: u32, xs: ptr<function, XLoads>, ws: ptr<function, WLoads>, thread: u32) {
  for (var i = 0u; i < X_LOADS; i++) {
    let at = i * THREADS + thread;
    let is_x = k / 4u + at % DEPTH_QUADS < params.k_quads;
    stages[stage + at / DEPTH_QUADS * X_STRIDE + at % DEPTH_QUADS] = select(vec4f(), (*xs)[i], is_x);
  }
  for (var i = 0u; i < W_LOADS; i++) {
    let at = i * THREADS + thread;
    let is_w = k + at / W_STRIDE < params.depth;
    stages[stage + X_QUADS + at] = select(vec4f(), unpack4((*ws)[i]), is_w);
  }
}

// A thread's weights of one k, which begin at `first` in a stage.
fn weights_at(first: u32) -> Weights {
  var weights: Weights;
  for (var c = 0u; c < QUADS; c++) {
    weights[c] = stages[first + c * COLUMN_THREADS];
  }
  return weights;
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
  // 1. Which outputs are this thread's. Its rows and quads of columns are as far apart as there are threads, so what neighbours
  //    read at once are neighbours too, in different banks of workgroup memory.
  let own = vec2u(thread % COLUMN_THREADS, thread / COLUMN_THREADS);
  let first_row = workgroup.y * TILE_ROWS;
  let first_quad = workgroup.x * W_STRIDE;

  // 2. Step by step along k.
  var sums: array<array<vec4f, QUADS>, ROWS>;
  var x_loads = fetch_x(0u, first_row, thread);
  var w_loads = fetch_w(0u, first_quad, thread);
  var stage = 0u;
  store(stage, 0u, &x_loads, &w_loads, thread);
  for (var k = 0u; k < params.depth; k += TILE_DEPTH) {
    workgroupBarrier(); // this stage is complete, and all are done with the other one
    x_loads = fetch_x(k + TILE_DEPTH, first_row, thread); // past K in the last step: zeros that nobody reads
    w_loads = fetch_w(k + TILE_DEPTH, first_quad, thread);

    // Four values of k at a time. They are written out: an index into a vec4 would have to be known to stay in registers.
    for (var quad = 0u; quad < DEPTH_QUADS; quad++) {
      var xs: array<vec4f, ROWS>;
      for (var r = 0u; r < ROWS; r++) {
        xs[r] = stages[stage + (own.y + r * ROW_THREADS) * X_STRIDE + quad];
      }
      let at = stage + X_QUADS + quad * 4u * W_STRIDE + own.x;
      var weights = weights_at(at);
      for (var r = 0u; r < ROWS; r++) {
        for (var c = 0u; c < QUADS; c++) {
          sums[r][c] = fma(xs[r].xxxx, weights[c], sums[r][c]);
        }
      }
      weights = weights_at(at + W_STRIDE);
      for (var r = 0u; r < ROWS; r++) {
        for (var c = 0u; c < QUADS; c++) {
          sums[r][c] = fma(xs[r].yyyy, weights[c], sums[r][c]);
        }
      }
      weights = weights_at(at + 2u * W_STRIDE);
      for (var r = 0u; r < ROWS; r++) {
        for (var c = 0u; c < QUADS; c++) {
          sums[r][c] = fma(xs[r].zzzz, weights[c], sums[r][c]);
        }
      }
      weights = weights_at(at + 3u * W_STRIDE);
      for (var r = 0u; r < ROWS; r++) {
        for (var c = 0u; c < QUADS; c++) {
          sums[r][c] = fma(xs[r].wwww, weights[c], sums[r][c]);
        }
      }
    }
    stage = STAGE_QUADS - stage;
    store(stage, k + TILE_DEPTH, &x_loads, &w_loads, thread);
  }

  // 3. Bias, epilogue, store.
  for (var c = 0u; c < QUADS; c++) {
    let column = first_quad + c * COLUMN_THREADS + own.x;
    let after = finish_of(min(column, N_QUADS - 1u));
    for (var r = 0u; r < ROWS; r++) {
      finish(first_row + r * ROW_THREADS + own.y, column, sums[r][c], after);
    }
  }
}
