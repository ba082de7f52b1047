// with storage-f32.wgsl | storage-f16.wgsl | storage-i8.wgsl
// with norm.wgsl
// with norm-row.wgsl
// with score-key.wgsl
// with head-best.wgsl
//
// Last layer norm and head in one launch:  y[r, first + n] = Σ_k norm(x[r])[k] · w[n, k]
//
// layernorm.wgsl and matmul-transposed.wgsl one after the other, with the same bits. A workgroup normalises ROWS rows of x,
// 1 or 4, once, and then goes through the blocks of rows of w that are its own, every grid.x-th: LANES threads share a row of w.
//
//   dispatch  [any number up to the blocks, 1, ceil(rows / ROWS)]; a block is 64 / LANES rows of w
//   x         [rows, K]  f32
//   norm      [2, K]     f32, weight and bias of the layer norm
//   w         [count, K]
//   scales    [N]        f32, read when SCALED: of the rows of the whole matrix
//   bests     [rows, 2, best_count]  u32, entries best_first … best_first + grid.x: see head-best.wgsl
//   y         [rows, N]  f32, rows padded to `stride`; columns first … first + columns are written, zero from count on

const WORKGROUP_SIZE = 64u;

override LANES: u32 = 16u; // threads that share a row of w: divides 64; 1 on a CPU that plays GPU

const SHARE_QUADS = 6u; // as in product.wgsl

override DEPTH: u32 = 1u; // K
override K_QUADS: u32 = (DEPTH + 3u) / 4u; // vec4s in a row of x, norm and w

struct Params {
  rows: u32,
  first: u32,   // column of y that w begins with
  count: u32,   // rows of w
  columns: u32, // columns of y to write: count, and the padding behind the last block
  stride: u32,  // elements from one row of y to the next
  best_first: u32, // entry of `bests` of the first workgroup
  best_count: u32, // entries of a row of `bests`, of all launches
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> norm: array<vec4f>;
@group(0) @binding(3) var<storage, read> w: array<Packed4>;
@group(0) @binding(4) var<storage, read> scales: array<f32>;
@group(0) @binding(5) var<storage, read_write> bests: array<u32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

var<workgroup> partial: array<vec4f, WORKGROUP_SIZE>;

fn add_up(sum: vec4f) -> f32 {
  return (sum.x + sum.y) + (sum.z + sum.w);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  // 1. The rows of x, normalised. Past the last one it is taken again, and its results are thrown away.
  let first_row = workgroup.z * ROWS;
  clear_bests(thread);
  for (var r = 0u; r < ROWS; r++) {
    row_start = r * ROW_QUADS;
    row_first = min(first_row + r, params.rows - 1u) * K_QUADS;
    normalise_row(thread, WORKGROUP_SIZE);
  }

  let lane = thread % LANES;
  let block_rows = WORKGROUP_SIZE / LANES;
  for (var first_n = workgroup.x * block_rows; first_n < params.columns; first_n += grid.x * block_rows) {
    let n = first_n + thread / LANES;

    // 2. This lane's share of k: its quads in order, each added to four sums, and at the end the four sums in pairs.
    var s0 = vec4f();
    var s1 = vec4f();
    var s2 = vec4f();
    var s3 = vec4f();
    if (n < params.count) {
      for (var quad = lane; quad < K_QUADS; quad += LANES) {
        let weights = unpack4(w[n * K_QUADS + quad]);
        s0 = fma(weights, row[quad], s0);
        if (ROWS > 1u) {
          s1 = fma(weights, row[ROW_QUADS + quad], s1);
          s2 = fma(weights, row[2u * ROW_QUADS + quad], s2);
          s3 = fma(weights, row[3u * ROW_QUADS + quad], s3);
        }
      }
    }
    var sums = vec4f(add_up(s0), add_up(s1), add_up(s2), add_up(s3)); // one for each row of x

    // 3. The shares of a row of w, added in order by its first lane.
    if (LANES > 1u) {
      partial[thread] = sums;
      workgroupBarrier(); // every share is written
      if (lane == 0u) {
        for (var other = 1u; other < LANES; other++) {
          sums += partial[thread + other];
        }
      }
      workgroupBarrier(); // all have read, before the next block overwrites the shares
    }

    // 4. Scale the finished sums and store; what lies behind the last column is zero.
    if (lane == 0u && n < params.columns) {
      if (SCALED) {
        sums *= scales[params.first + n] * SCALE_UNIT;
      }
      for (var r = 0u; r < ROWS && first_row + r < params.rows; r++) {
        y[(first_row + r) * params.stride + params.first + n] = sums[r];
      }
      if (n < params.count) {
        include_logits(params.first + n, sums);
      }
    }
  }
  write_bests(thread, workgroup.x, first_row);
}
