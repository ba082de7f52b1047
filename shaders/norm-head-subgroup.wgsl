enable subgroups;
// with storage-f32.wgsl | storage-f16.wgsl | storage-i8.wgsl
// with norm.wgsl
// with norm-row.wgsl
// with score-key.wgsl
// with head-best.wgsl
//
// Last layer norm and head in one launch, the form for GPUs with subgroups:  y[r, first + n] = Σ_k norm(x[r])[k] · w[n, k]
//
// Read norm-head.wgsl first: this kernel differs in who shares a row of w, a subgroup, as in matmul-transposed-subgroup.wgsl,
// whose bits it gives. A subgroup asks for its next row of w before it uses the one in hand. No subgroup size is assumed.
//
//   dispatch  [any number, 1, ceil(rows / ROWS)]; stripes of 4 rows of w go round the workgroups, and their rows round the subgroups
//   x         [rows, K]  f32
//   norm      [2, K]     f32, weight and bias of the layer norm
//   w         [count, K]
//   scales    [N]        f32, read when SCALED: of the rows of the whole matrix
//   bests     [rows, 2, best_count]  u32, entries best_first … best_first + grid.x: see head-best.wgsl
//   y         [rows, N]  f32, rows padded to `stride`; columns first … first + columns are written, zero from count on

const WORKGROUP_SIZE = 128u;
const STRIPE = 4u; // neighbouring rows of w, the same workgroup's
const AHEAD = 8u; // quads of a row of w that a lane asks for one row ahead: 1,024 channels by 32 lanes

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

var<private> fetched: array<Packed4, AHEAD>;

// Ask for this lane's first quads of row n of w.
fn fetch(n: u32, lane: u32, lanes: u32) {
  let first = min(n, params.count - 1u) * K_QUADS;
  for (var i = 0u; i < AHEAD; i++) {
    let quad = lane + i * lanes;
    if (quad < K_QUADS) {
      fetched[i] = w[first + quad];
    }
  }
}

// A workgroup has every grid-th stripe of rows, whose length does not depend on the subgroup size: its turn-th row.
fn row_of(turn: u32, workgroup: u32, grid: u32) -> u32 {
  return (turn / STRIPE * grid + workgroup) * STRIPE + turn % STRIPE;
}

fn add_up(sum: vec4f) -> f32 {
  return (sum.x + sum.y) + (sum.z + sum.w);
}

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
  // 1. The rows of x, normalised. Past the last one it is taken again, and its results are thrown away. The first row of w
  //    travels meanwhile.
  let first_row = workgroup.z * ROWS;
  clear_bests(thread);
  var turn = subgroup;
  var n = row_of(turn, workgroup.x, grid.x);
  fetch(n, lane, lanes);
  for (var r = 0u; r < ROWS; r++) {
    row_start = r * ROW_QUADS;
    row_first = min(first_row + r, params.rows - 1u) * K_QUADS;
    normalise_row(thread, WORKGROUP_SIZE);
  }

  while (n < params.columns) {
    // 2. The next row sets out before this one is used.
    let weights = fetched;
    turn += subgroups;
    let next = row_of(turn, workgroup.x, grid.x);
    fetch(next, lane, lanes);

    // 3. This lane's share of k: its quads in order, each added to four sums, and at the end the four sums in pairs.
    var s0 = vec4f();
    var s1 = vec4f();
    var s2 = vec4f();
    var s3 = vec4f();
    if (n < params.count) {
      for (var i = 0u; i < AHEAD; i++) {
        let quad = lane + i * lanes;
        if (quad < K_QUADS) {
          let weight = unpack4(weights[i]);
          s0 = fma(weight, row[quad], s0);
          if (ROWS > 1u) {
            s1 = fma(weight, row[ROW_QUADS + quad], s1);
            s2 = fma(weight, row[2u * ROW_QUADS + quad], s2);
            s3 = fma(weight, row[3u * ROW_QUADS + quad], s3);
          }
        }
      }
      for (var quad = lane + AHEAD * lanes; quad < K_QUADS; quad += lanes) {
        let weight = unpack4(w[n * K_QUADS + quad]);
        s0 = fma(weight, row[quad], s0);
        if (ROWS > 1u) {
          s1 = fma(weight, row[ROW_QUADS + quad], s1);
          s2 = fma(weight, row[2u * ROW_QUADS + quad], s2);
          s3 = fma(weight, row[3u * ROW_QUADS + quad], s3);
        }
      }
    }
    var sums = vec4f(add_up(s0), add_up(s1), add_up(s2), add_up(s3)); // one for each row of x

    // 4. The subgroup's sum, known to every lane; the order is the GPU's, and the same each time.
    if (ROWS == 1u) {
      sums.x = subgroupAdd(sums.x);
    } else {
      sums = subgroupAdd(sums);
    }

    // 5. Scale the finished sums and store; what lies behind the last column is zero.
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
    n = next;
  }
  write_bests(thread, workgroup.x, first_row);
}
