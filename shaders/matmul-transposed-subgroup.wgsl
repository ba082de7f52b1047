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
const MAX_ROWS = 4u;

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
  // One dimension of a dispatch ends at 65,535 workgroups, so the second one continues it.
  let first_n = (workgroup.y * grid.x + workgroup.x) * WORKGROUP_ROWS;
  for (var i = subgroup; i < WORKGROUP_ROWS; i += subgroups) {
    let n = first_n + i;

    // 1. This lane's share of k, for ROWS rows of x: the lane's quads in order, each added to four sums with fma, which no
    //    compiler rounds differently, and at the end the four sums in pairs. Past the last row it is computed again and
    //    thrown away.
    var quad_sums = array<vec4f, MAX_ROWS>(); // in a loop some compilers zero it only once, unless told
    if (n < params.count) {
      for (var quad = lane; quad < k_quads; quad += lanes) {
        let weights = unpack4(w[n * k_quads + quad]);
        for (var r = 0u; r < ROWS; r++) {
          quad_sums[r] = fma(weights, x[min(row + r, params.rows - 1u) * k_quads + quad], quad_sums[r]);
        }
      }
    }
    var sums = vec4f();
    for (var r = 0u; r < ROWS; r++) {
      sums[r] = (quad_sums[r].x + quad_sums[r].y) + (quad_sums[r].z + quad_sums[r].w);
    }

    // 2. The subgroup's sum, known to every lane; the order is the GPU's, and the same each time.
    sums = subgroupAdd(sums);

    // 3. Scale the finished sums and store; what lies behind the last column is zero.
    if (lane == 0u && n < params.columns) {
      if (SCALED) {
        sums *= scales[params.first + n];
      }
      for (var r = 0u; r < ROWS && row + r < params.rows; r++) {
        y[(row + r) * params.stride + params.first + n] = sums[r];
      }
    }
  }
}
