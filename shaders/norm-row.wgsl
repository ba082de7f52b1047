// Part: rows of x, normalised (norm.wgsl), in workgroup memory, from where a product reads them.
//
// Every workgroup of a product normalises its rows anew: a row is 3 KB, and a launch of its own would cost more. The kernel
// binds x [rows, k_quads] and norm [2, k_quads] (weight, then bias); its params have depth (columns), k_quads and epsilon.

override ROW_QUADS: u32 = 6u; // k_quads, rounded up to whole shares
override ROWS: u32 = 1u;      // rows that a workgroup holds

var<workgroup> row: array<vec4f, ROW_QUADS * ROWS>;

var<private> row_start: u32; // where in `row` the row in hand begins

fn norm_source(quad: u32) -> vec4f {
  return row[row_start + quad];
}

fn x_quad(quad: u32) -> vec4f {
  return row[row_start + quad];
}

// Fill the row in hand from the quads of x from `first` on; zeros behind its end. Every thread of the workgroup calls.
fn normalise_row(thread: u32, threads: u32, first: u32) {
  let k_quads = params.k_quads;
  for (var quad = thread; quad < ROW_QUADS; quad += threads) {
    row[row_start + quad] = select(vec4f(), x[first + min(quad, k_quads - 1u)], quad < k_quads);
  }
  workgroupBarrier(); // the row is there
  let statistics = norm_statistics(thread, params.depth, params.epsilon);
  for (var quad = thread; quad < k_quads; quad += threads) {
    let at = row_start + quad;
    row[at] = normalised(row[at], statistics, norm[quad], norm[k_quads + quad]);
  }
  workgroupBarrier(); // the normalised row is there
}
