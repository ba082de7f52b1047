// Part: rows of x, normalised (norm.wgsl), in workgroup memory, from where a product reads them.
//
// Every workgroup of a product normalises its rows anew: a row is 3 KB, and a launch of its own would cost more. The kernel
// binds x [rows, K] and norm [2, K] (weight, then bias), and has the constants DEPTH (K), K_QUADS (vec4s in
// a row) and SHARE_QUADS, and sets row_first.

override ROW_QUADS: u32 = 6u; // K_QUADS, rounded up to whole shares
override ROWS: u32 = 1u;      // rows that a workgroup holds
override ROW_SLOTS: u32 = ROW_QUADS * ROWS;
override EPSILON: f32 = 1e-5;
override INVERSE_DEPTH: f32 = 1.0; // 1 / K, rounded by the host

var<workgroup> row: array<vec4f, ROW_SLOTS>;

var<private> row_first: u32; // where the row in hand begins in x, in vec4s
var<private> row_start: u32; // and where in `row`

fn norm_source(quad: u32) -> vec4f {
  return row[row_start + quad];
}

// The row in hand, as shares.wgsl asks for it.
fn fetch_row(share: u32) {}

fn share_quad(share: u32, i: u32) -> vec4f {
  return row[row_start + share * SHARE_QUADS + i];
}

fn x_quad(quad: u32) -> vec4f {
  return row[row_start + quad];
}

const ROW_AHEAD = 2u; // quads of weight and bias that a thread asks for before it waits for the row

// Fill the row in hand; zeros behind its end. Every thread of the workgroup calls, of which there are at least NORM_LANES.
fn normalise_row(thread: u32, threads: u32) {
  let last = K_QUADS - 1u;
  for (var quad = thread; quad < ROW_QUADS; quad += threads) {
    row[row_start + quad] = select(vec4f(), x[row_first + min(quad, last)], quad < K_QUADS);
  }
  var weights_ahead: array<vec4f, ROW_AHEAD>;
  var biases_ahead: array<vec4f, ROW_AHEAD>;
  for (var i = 0u; i < ROW_AHEAD; i++) {
    let quad = min(thread + i * threads, last);
    weights_ahead[i] = norm[quad];
    biases_ahead[i] = norm[K_QUADS + quad];
  }
  workgroupBarrier(); // the row is there
  let statistics = norm_statistics(thread, DEPTH, INVERSE_DEPTH, EPSILON);
  for (var i = 0u; i < ROW_AHEAD; i++) {
    let quad = thread + i * threads;
    if (quad < K_QUADS) {
      let at = row_start + quad;
      row[at] = normalised(row[at], statistics, weights_ahead[i], biases_ahead[i]);
    }
  }
  for (var quad = thread + ROW_AHEAD * threads; quad < K_QUADS; quad += threads) {
    let at = row_start + quad;
    row[at] = normalised(row[at], statistics, norm[quad], norm[K_QUADS + quad]);
  }
  workgroupBarrier(); // the normalised row is there
}
