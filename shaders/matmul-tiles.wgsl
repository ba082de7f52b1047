// with storage-f32.wgsl | storage-f16.wgsl | storage-i8.wgsl
// with activation.wgsl
// with product.wgsl
//
// matmul.wgsl with tiles in workgroup memory:  y[r, n] = epilogue(Σ_k x[r, k] · w[k, n] + bias[n])
//
// A workgroup owns 32 rows × 64 columns and walks along k. In each step its threads load a tile of x and one of w together,
// each element once, and then multiply from workgroup memory, a thread 4 rows × 4 neighbouring columns. So a weight that came
// from memory serves 32 rows, and an x 64 columns, where a thread of matmul.wgsl has four of each and hopes for the cache.
// Weights are unpacked once, on their way into the tile.
//
// The sum is one chain of fma along k, as in matmul-naive.wgsl and matmul-registers.wgsl, so all three give the same bits.
//
//   dispatch  [ceil(N_QUADS / 16), ceil(rows / 32)]
//   x         [rows, K]  f32
//   w         [K, N]     as GPT-2's Conv1D stores it
//   bias      [1, N]     f32, and a second row of scales for w in bytes
//   residual  [rows, N]  f32, read when EPILOGUE is ADD_RESIDUAL
//   y         [rows, N]  f32

const COLUMN_THREADS = 16u;
const ROW_THREADS = 8u;
const THREADS = COLUMN_THREADS * ROW_THREADS;
const BLOCK = 4u; // rows a thread computes
const TILE_ROWS = ROW_THREADS * BLOCK;
const STEP_QUADS = 6u; // of k
const TILE_DEPTH = 4u * STEP_QUADS;

// Quads of the two tiles: 3 KiB and 6 KiB.
const X_QUADS = TILE_ROWS * STEP_QUADS;
const W_QUADS = TILE_DEPTH * COLUMN_THREADS;

struct Params {
  rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<Packed4>;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;
@group(0) @binding(4) var<storage, read> residual: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4f>;

var<workgroup> x_tile: array<vec4f, X_QUADS>; // [TILE_ROWS][STEP_QUADS]
var<workgroup> w_tile: array<vec4f, W_QUADS>; // [TILE_DEPTH][COLUMN_THREADS]

// Stage the step that begins at `first_quad` of k. Past K both tiles are zero; past the last row and the last column those
// stand in, and what is computed with them is never stored.
fn load_tiles(first_quad: u32, workgroup: vec2u, thread: u32) {
  for (var i = thread; i < X_QUADS; i += THREADS) {
    let row = min(workgroup.y * TILE_ROWS + i / STEP_QUADS, params.rows - 1u);
    let quad = first_quad + i % STEP_QUADS;
    x_tile[i] = select(vec4f(), x[row * K_QUADS + min(quad, K_QUADS - 1u)], quad < K_QUADS);
  }
  for (var i = thread; i < W_QUADS; i += THREADS) {
    let k = first_quad * 4u + i / COLUMN_THREADS;
    let column = min(workgroup.x * COLUMN_THREADS + i % COLUMN_THREADS, N_QUADS - 1u);
    w_tile[i] = select(vec4f(), unpack4(w[min(k, DEPTH - 1u) * N_QUADS + column]), k < DEPTH);
  }
}

fn finish(row: u32, column: u32, sum: vec4f) {
  if (row >= params.rows || column >= N_QUADS) {
    return;
  }
  let at = row * N_QUADS + column;
  var value = activate(biased(sum, finish_of(column)));
  if (EPILOGUE == ADD_RESIDUAL) {
    value += residual[at];
  }
  y[at] = value;
}

@compute @workgroup_size(COLUMN_THREADS, ROW_THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(local_invocation_id) own: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  // Rows of a thread are ROW_THREADS apart. The two rows that 32 threads read at once are neighbours then, whose quads lie
  // in different banks; rows 4 apart would begin in the same one.
  var sums: array<vec4f, BLOCK>;

  for (var first_quad = 0u; first_quad < K_QUADS; first_quad += STEP_QUADS) {
    // 1. The tiles of this step.
    load_tiles(first_quad, workgroup.xy, thread);
    workgroupBarrier(); // both tiles are complete

    // 2. Their products.
    for (var quad = 0u; quad < STEP_QUADS; quad++) {
      let at = quad * 4u * COLUMN_THREADS + own.x;
      let w0 = w_tile[at];
      let w1 = w_tile[at + COLUMN_THREADS];
      let w2 = w_tile[at + 2u * COLUMN_THREADS];
      let w3 = w_tile[at + 3u * COLUMN_THREADS];
      for (var i = 0u; i < BLOCK; i++) {
        let xs = x_tile[(own.y + i * ROW_THREADS) * STEP_QUADS + quad];
        sums[i] = fma(xs.wwww, w3, fma(xs.zzzz, w2, fma(xs.yyyy, w1, fma(xs.xxxx, w0, sums[i]))));
      }
    }
    workgroupBarrier(); // all are done with the tiles: the next step may overwrite them
  }

  // 3. Bias, epilogue, store.
  let column = workgroup.x * COLUMN_THREADS + own.x;
  for (var i = 0u; i < BLOCK; i++) {
    finish(workgroup.y * TILE_ROWS + own.y + i * ROW_THREADS, column, sums[i]);
  }
}
