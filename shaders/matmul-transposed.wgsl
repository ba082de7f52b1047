// with storage-f32.wgsl | storage-f16.wgsl | storage-i8.wgsl
//
// Product with a transposed matrix:  y[r, first + n] = Σ_k x[r, k] · w[n, k]
//
// This is GPT-2's head, which is the token embedding [V, C] itself. Rows of w are dot products with x, so LANES threads
// share one and read neighbouring quads of it; their partial sums meet in workgroup memory and are added in order. Each
// thread keeps ROWS rows of x going, so that a weight it loads serves them all. `w` may be a block of rows of the whole
// matrix, when that is larger than one binding may be: its results begin at column `first`.
//
//   dispatch  [x, y, ceil(rows / ROWS)] workgroups, x · y at least ceil(columns / (64 / LANES))
//   x         [rows, K]  f32
//   w         [count, K]
//   scales    [N]        f32, read when SCALED: of the rows of the whole matrix
//   y         [rows, N]  f32, rows padded to `stride`; columns first … first + columns are written, zero from count on

const WORKGROUP_SIZE = 64u;

override LANES: u32 = 16u; // threads that share a row of w: divides 64; 1 on a CPU that plays GPU
override ROWS: u32 = 1u;   // rows of x that a thread computes: 1 to 4

struct Params {
  rows: u32,
  k_quads: u32, // vec4s in a row of x and of w
  first: u32,   // column of y that w begins with
  count: u32,   // rows of w
  columns: u32, // columns of y to write: count, and the padding behind the last block
  stride: u32,  // elements from one row of y to the next
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<Packed4>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

var<workgroup> partial: array<vec4f, WORKGROUP_SIZE>;

fn add_up(v: vec4f) -> f32 {
  return (v.x + v.y) + (v.z + v.w);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  // One dimension of a dispatch ends at 65,535 workgroups, so the second one continues it.
  let lane = thread % LANES;
  let n = (workgroup.y * grid.x + workgroup.x) * (WORKGROUP_SIZE / LANES) + thread / LANES;
  let row = workgroup.z * ROWS;
  let k_quads = params.k_quads; // read once: not every compiler does so by itself
  // Where the rows of x begin. Past the end the last row is computed again and thrown away.
  let last = params.rows - 1u;
  let r0 = row * k_quads;
  let r1 = min(row + 1u, last) * k_quads;
  let r2 = min(row + 2u, last) * k_quads;
  let r3 = min(row + 3u, last) * k_quads;

  // 1. This lane's share of k: its quads in order, each added to four sums with fma, which no compiler rounds
  //    differently, and at the end the four sums in pairs. Variables instead of an array stay in registers everywhere.
  var s0 = vec4f();
  var s1 = vec4f();
  var s2 = vec4f();
  var s3 = vec4f();
  if (n < params.count) {
    for (var quad = lane; quad < k_quads; quad += LANES) {
      let weights = unpack4(w[n * k_quads + quad]);
      s0 = fma(weights, x[r0 + quad], s0);
      if (ROWS > 1u) {
        s1 = fma(weights, x[r1 + quad], s1);
        s2 = fma(weights, x[r2 + quad], s2);
        s3 = fma(weights, x[r3 + quad], s3);
      }
    }
  }
  var sums = vec4f(add_up(s0), add_up(s1), add_up(s2), add_up(s3)); // one for each row of x

  // 2. The shares of a row of w, added in order by its first lane.
  if (LANES > 1u) {
    partial[thread] = sums;
    workgroupBarrier(); // every share is written
    if (lane == 0u) {
      for (var other = 1u; other < LANES; other++) {
        sums += partial[thread + other];
      }
    }
  }

  // 3. Scale the finished sums and store; what lies behind the last column is zero.
  if (lane == 0u && n < params.columns) {
    if (SCALED) {
      sums *= scales[params.first + n] * SCALE_UNIT;
    }
    for (var r = 0u; r < ROWS && row + r < params.rows; r++) {
      y[(row + r) * params.stride + params.first + n] = sums[r];
    }
  }
}
