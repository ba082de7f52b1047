// Part: the product of one row with a matrix, w [K, N], by threads that share its columns.
//
// A workgroup is COLUMNS × SPLIT threads and owns COLUMNS quads of columns. With one row there is nothing to reuse, so the
// time is that of reading w: each thread loads a whole share (24 rows of w) before it computes anything, and a kernel asks
// for the first share before it prepares its row, so that the loads travel meanwhile.
// alone.wgsl is the form for a CPU that plays GPU.
//
// The kernel has product.wgsl, binds w and bias, and defines its row share by share, zero past its end:
// `share_quad(share, i) -> vec4f`, which `fetch_row(share)` may ask for in advance.

override COLUMNS: u32 = 4u;    // quads of columns of a workgroup
override SPLIT: u32 = 32u;     // threads that share a column
override PARTIALS: u32 = 128u; // COLUMNS · number of shares, at least

const SHARE_ROWS = 24u; // rows of w in a share: 4 · SHARE_QUADS
override SHARES: u32 = (DEPTH + SHARE_ROWS - 1u) / SHARE_ROWS;
override WHOLE_SHARES: bool = DEPTH % SHARE_ROWS == 0u;
override ONE_ROUND: bool = SPLIT >= SHARES; // a share a thread at most: straight code

var<workgroup> partial: array<vec4f, PARTIALS>;
var<private> weights: array<Packed4, SHARE_ROWS>;

// Ask for a share of a column. Past the end of w its last row stands in: x is zero there.
fn load_share(share: u32, column: u32) {
  let own = min(share, SHARES - 1u);
  fetch_row(own);
  let end = DEPTH - 1u;
  let at = min(column, N_QUADS - 1u);
  let k = own * SHARE_ROWS;
  if (WHOLE_SHARES || k + SHARE_ROWS <= DEPTH) {
    for (var i = 0u; i < SHARE_ROWS; i++) {
      weights[i] = w[(k + i) * N_QUADS + at];
    }
  } else {
    for (var i = 0u; i < SHARE_ROWS; i++) {
      weights[i] = w[min(k + i, end) * N_QUADS + at];
    }
  }
}

// Four steps of the chain. fma is spelled out, so that no compiler rounds one form differently.
fn chain(sum: vec4f, x: vec4f, w0: Packed4, w1: Packed4, w2: Packed4, w3: Packed4) -> vec4f {
  return fma(x.wwww, unpack4(w3), fma(x.zzzz, unpack4(w2), fma(x.yyyy, unpack4(w1), fma(x.xxxx, unpack4(w0), sum))));
}

fn sum_share(share: u32) -> vec4f {
  var sum = vec4f();
  for (var i = 0u; i < SHARE_QUADS; i++) {
    let k = i * 4u;
    sum = chain(sum, share_quad(share, i), weights[k], weights[k + 1u], weights[k + 2u], weights[k + 3u]);
  }
  return sum;
}

// The sum over all k of a quad of columns; every thread of the workgroup calls, those with thread.y = 0 get the sum. Its
// first share, number thread.y, was asked for by load_share.
fn sum_columns(thread: vec2u, column: u32) -> vec4f {
  // 1. The shares.
  if (ONE_ROUND) {
    if (thread.y < SHARES) {
      partial[thread.y * COLUMNS + thread.x] = sum_share(thread.y);
    }
  } else {
    for (var share = thread.y; share < SHARES; share += SPLIT) {
      if (share != thread.y) {
        load_share(share, column);
      }
      partial[share * COLUMNS + thread.x] = sum_share(share);
    }
  }
  workgroupBarrier(); // every share is there

  // 2. The groups, each in the place of its first share, which nobody else reads.
  let group_step = GROUP_SHARES * COLUMNS;
  let end = SHARES * COLUMNS;
  for (var first = thread.y * group_step; first < end; first += SPLIT * group_step) {
    var group = partial[first + thread.x];
    for (var i = 1u; i < GROUP_SHARES; i++) { // of constant length, so that no load waits for another
      let at = first + i * COLUMNS;
      let next = partial[min(at, end - COLUMNS) + thread.x];
      group = select(group, group + next, at < end);
    }
    partial[first + thread.x] = group;
  }
  workgroupBarrier(); // every group is there

  // 3. The groups in order.
  var total = vec4f();
  if (thread.y == 0u) {
    for (var at = thread.x; at < end; at += group_step) {
      total += partial[at];
    }
  }
  return total;
}
