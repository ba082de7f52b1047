// Part: the product of one row with a matrix, w [K, N], a thread a quad of columns: the form for a CPU that plays GPU, which
// has no loads to hide, pays for barriers, and keeps arrays in memory. Its order of summation is that of shares.wgsl.
//
// The kernel has product.wgsl, binds w and bias, and defines `x_quad(quad) -> vec4f`, a quad of its row, zero in the padding.

override COLUMNS: u32 = 64u; // quads of columns of a workgroup
override SPLIT: u32 = 1u;    // threads that share a column: one

// Nothing is asked for in advance.
fn load_share(share: u32, column: u32) {}

// The sum over all k of a quad of columns, group by group, share by share.
fn sum_columns(thread: vec2u, column: u32) -> vec4f {
  let at = min(column, N_QUADS - 1u);
  let end = DEPTH - 1u;
  var total = vec4f();
  for (var first_of_group = 0u; first_of_group < K_QUADS; first_of_group += SHARE_QUADS * GROUP_SHARES) {
    var group = vec4f();
    let group_stop = min(first_of_group + SHARE_QUADS * GROUP_SHARES, K_QUADS);
    for (var first = first_of_group; first < group_stop; first += SHARE_QUADS) {
      var sum = vec4f();
      let stop = min(first + SHARE_QUADS, K_QUADS);
      for (var quad = first; quad < stop; quad++) {
        // Where K is no multiple of 4, x is zero past K, but w has no such rows: the last one stands in for them.
        let k = quad * 4u;
        let w0 = unpack4(w[k * N_QUADS + at]);
        let w1 = unpack4(w[min(k + 1u, end) * N_QUADS + at]);
        let w2 = unpack4(w[min(k + 2u, end) * N_QUADS + at]);
        let w3 = unpack4(w[min(k + 3u, end) * N_QUADS + at]);
        let x0 = x_quad(quad);
        sum = fma(x0.wwww, w3, fma(x0.zzzz, w2, fma(x0.yyyy, w1, fma(x0.xxxx, w0, sum))));
      }
      group += sum;
    }
    total += group;
  }
  return total;
}
