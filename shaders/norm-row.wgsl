// Part: a row of x, normalised (norm.wgsl), in workgroup memory, from where a product reads it.
//
// Every workgroup of a product normalises its row anew: a row is 3 KB, and a launch of its own would cost more. The kernel
// binds x [rows, k_quads] and norm [2, k_quads] (weight, then bias); its params have depth (columns), k_quads and epsilon.

override ROW_QUADS: u32 = 6u; // k_quads, rounded up to whole shares

var<workgroup> row: array<vec4f, ROW_QUADS>;

fn norm_source(quad: u32) -> vec4f {
  return row[quad];
}

fn x_quad(quad: u32) -> vec4f {
  return row[quad];
}

// Fill `row` from the quads of x from `first` on; zeros behind its end. Every thread of the workgroup calls.
fn normalise_row(thread: u32, threads: u32, first: u32) {
  let k_quads = params.k_quads;
  for (var quad = thread; quad < ROW_QUADS; quad += threads) {
    row[quad] = select(vec4f(), x[first + min(quad, k_quads - 1u)], quad < k_quads);
  }
  workgroupBarrier(); // the row is there
  let statistics = norm_statistics(thread, params.depth, params.epsilon);
  for (var quad = thread; quad < k_quads; quad += threads) {
    row[quad] = normalised(row[quad], statistics, norm[quad], norm[k_quads + quad]);
  }
  workgroupBarrier(); // the normalised row is there
}
