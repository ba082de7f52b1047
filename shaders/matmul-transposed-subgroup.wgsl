enable subgroups;
// with storage-f32.wgsl | storage-f16.wgsl | storage-i8.wgsl
//
// Product with a transposed matrix, the form for GPUs with subgroups:  y[r, first + n] = Σ_k x[r, k] · w[n, k]
//
// Read matmul-transposed.wgsl first: this kernel differs in who shares a row of w. Here it is a subgroup, the threads
// that a GPU runs in step, 32 on NVIDIA: they add their partial sums in registers, without workgroup memory or a barrier.
// No subgroup size is assumed: the subgroups of a workgroup take its rows in turn, however many they are.
//
//   dispatch  [x, y, ceil(rows / ROWS)] workgroups, x · y at least ceil(columns / 8)
//   x         [rows, K]  f32
//   w         [count, K]
//   scales    [N]        f32, read when SCALED: of the rows of the whole matrix
//   y         [rows, N]  f32, rows padded to `stride`; columns first … first + columns are written, zero from count on

const WORKGROUP_SIZE = 128u;
const WORKGROUP_ROWS = 8u; // rows of w of a workgroup

override ROWS: u32 = 1u; // rows of x that a thread computes: 1 to 4

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

fn add_up(v: vec4f) -> f32 {
  return (v.x + v.y) + (v.z + v.w);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(num_subgroups) subgroups: u32,
  @builtin(subgroup_invocation_id) lane: u32,
  @builtin(subgroup_size) lanes: u32,
) {
  let row = workgroup.z * ROWS;
  let k_quads = params.k_quads; // read once: not every compiler does so by itself
  // Where the rows of x begin. Past the end the last row is computed again and thrown away.
  let last = params.rows - 1u;
  let r0 = row * k_quads;
  let r1 = min(row + 1u, last) * k_quads;
  let r2 = min(row + 2u, last) * k_quads;
  let r3 = min(row + 3u, last) * k_quads;
  // One dimension of a dispatch ends at 65,535 workgroups, so the second one continues it.
  let first_n = (workgroup.y * grid.x + workgroup.x) * WORKGROUP_ROWS;
  for (var i = subgroup; i < WORKGROUP_ROWS; i += subgroups) {
    let n = first_n + i;

    // 1. This lane's share of k: its quads in order, each added to four sums with fma, which no compiler rounds
    //    differently, and at the end the four sums in pairs. Variables instead of an array stay in registers everywhere.
    var s0 = vec4f();
    var s1 = vec4f();
    var s2 = vec4f();
    var s3 = vec4f();
    if (n < params.count) {
      for (var quad = lane; quad < k_quads; quad += lanes) {
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

    // 2. The subgroup's sum, known to every lane; the order is the GPU's, and the same each time.
    if (ROWS == 1u) {
      sums.x = subgroupAdd(sums.x);
    } else {
      sums = subgroupAdd(sums);
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
}
