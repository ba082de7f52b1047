enable subgroups;
// with storage-f32.wgsl | storage-f16.wgsl | storage-i8.wgsl
// with norm.wgsl
// with norm-row.wgsl
//
// Last layer norm and head in one launch, the form for GPUs with subgroups:  y[r, first + n] = Σ_k norm(x[r])[k] · w[n, k]
//
// Read norm-head.wgsl first: this kernel differs in who shares a row of w, a subgroup, as in matmul-transposed-subgroup.wgsl,
// whose bits it gives. No subgroup size is assumed.
//
//   dispatch  [any number up to the blocks, 1, ceil(rows / ROWS)]; a block is 8 rows of w
//   x         [rows, K]  f32
//   norm      [2, K]     f32, weight and bias of the layer norm
//   w         [count, K]
//   scales    [N]        f32, read when SCALED: of the rows of the whole matrix
//   y         [rows, N]  f32, rows padded to `stride`; columns first … first + columns are written, zero from count on

const WORKGROUP_SIZE = 128u;
const BLOCK_ROWS = 8u; // rows of w of a block
const MAX_ROWS = 4u;

struct Params {
  rows: u32,
  depth: u32,   // K
  k_quads: u32, // vec4s in a row of x, norm and w
  epsilon: f32,
  first: u32,   // column of y that w begins with
  count: u32,   // rows of w
  columns: u32, // columns of y to write: count, and the padding behind the last block
  stride: u32,  // elements from one row of y to the next
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> norm: array<vec4f>;
@group(0) @binding(3) var<storage, read> w: array<Packed4>;
@group(0) @binding(4) var<storage, read> scales: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(num_subgroups) subgroups: u32,
  @builtin(subgroup_invocation_id) lane: u32,
  @builtin(subgroup_size) lanes: u32,
) {
  // 1. The rows of x, normalised. Past the last one it is taken again, and its results are thrown away.
  let first_row = workgroup.z * ROWS;
  let k_quads = params.k_quads; // read once: not every compiler does so by itself
  for (var r = 0u; r < ROWS; r++) {
    row_start = r * ROW_QUADS;
    normalise_row(thread, WORKGROUP_SIZE, min(first_row + r, params.rows - 1u) * k_quads);
  }

  for (var first_n = workgroup.x * BLOCK_ROWS; first_n < params.columns; first_n += grid.x * BLOCK_ROWS) {
    for (var i = subgroup; i < BLOCK_ROWS; i += subgroups) {
      let n = first_n + i;

      // 2. This lane's share of k: its quads in order, each added to four sums, and at the end the four sums in pairs.
      var quad_sums = array<vec4f, MAX_ROWS>(); // in a loop some compilers zero it only once, unless told
      if (n < params.count) {
        for (var quad = lane; quad < k_quads; quad += lanes) {
          let weights = unpack4(w[n * k_quads + quad]);
          for (var r = 0u; r < ROWS; r++) {
            quad_sums[r] = fma(weights, row[r * ROW_QUADS + quad], quad_sums[r]);
          }
        }
      }
      var sums = vec4f();
      for (var r = 0u; r < ROWS; r++) {
        sums[r] = (quad_sums[r].x + quad_sums[r].y) + (quad_sums[r].z + quad_sums[r].w);
      }

      // 3. The subgroup's sum, known to every lane; the order is the GPU's, and the same each time.
      sums = subgroupAdd(sums);

      // 4. Scale the finished sums and store; what lies behind the last column is zero.
      if (lane == 0u && n < params.columns) {
        if (SCALED) {
          sums *= scales[params.first + n];
        }
        for (var r = 0u; r < ROWS && first_row + r < params.rows; r++) {
          y[(first_row + r) * params.stride + params.first + n] = sums[r];
        }
      }
    }
  }
}
