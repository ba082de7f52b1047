// with storage-f32.wgsl | storage-f16.wgsl | storage-i8.wgsl
// with activation.wgsl
// with product.wgsl
//
// Matrix product with bias:  y[r, n] = epilogue(Σ_k x[r, k] · w[k, n] + bias[n])
//
// One thread computes a block of 4 rows × 4 neighbouring columns in registers: each weight it loads serves four rows, and
// each x four columns. No workgroup memory and no barrier, which makes it the right form for a CPU that plays GPU, and a
// fair one for a GPU, whose caches serve the threads that share a row or a column.
//
// The sum over k is taken in the shares and groups of product.wgsl, one after the other, as matvec.wgsl takes them side by
// side. So a token has the same bits whether it is computed alone or among others.
//
//   dispatch  [ceil(N_QUADS / 16), ceil(rows / 16)]: a workgroup is 16 × 4 threads, so 64 columns × 16 rows
//   x         [rows, K]  f32
//   w         [K, N]     as GPT-2's Conv1D stores it
//   bias      [1, N]     f32, and a second row of scales for w in bytes
//   residual  [rows, N]  f32, read when EPILOGUE is ADD_RESIDUAL
//   y         [rows, N]  f32

const COLUMN_THREADS = 16u;
const ROW_THREADS = 4u;
const BLOCK = 4u; // rows a thread computes

struct Params {
  rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<Packed4>;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;
@group(0) @binding(4) var<storage, read> residual: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4f>;

fn finish(row: u32, column: u32, sum: vec4f) {
  if (row >= params.rows) {
    return;
  }
  let at = row * N_QUADS + column;
  var value = activate(biased(sum, finish_of(column)));
  if (EPILOGUE == ADD_RESIDUAL) {
    value += residual[at];
  }
  y[at] = value;
}

@compute @workgroup_size(COLUMN_THREADS, ROW_THREADS)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x;
  let row = id.y * BLOCK;
  if (column >= N_QUADS || row >= params.rows) {
    return;
  }

  // 1. Where the four rows of x begin. Past the end the last row is computed again and thrown away.
  let last = params.rows - 1u;
  let r0 = row * K_QUADS;
  let r1 = min(row + 1u, last) * K_QUADS;
  let r2 = min(row + 2u, last) * K_QUADS;
  let r3 = min(row + 3u, last) * K_QUADS;

  // 2. Group by group, share by share, four values of k at a time. Where K is no multiple of 4, x is zero past K, but w has
  //    no such rows: the last one stands in for them. fma is spelled out, so that no compiler rounds one form differently.
  let end = DEPTH - 1u;
  var y0 = vec4f();
  var y1 = vec4f();
  var y2 = vec4f();
  var y3 = vec4f();
  for (var first_of_group = 0u; first_of_group < K_QUADS; first_of_group += SHARE_QUADS * GROUP_SHARES) {
    var g0 = vec4f();
    var g1 = vec4f();
    var g2 = vec4f();
    var g3 = vec4f();
    let group_stop = min(first_of_group + SHARE_QUADS * GROUP_SHARES, K_QUADS);
    for (var first = first_of_group; first < group_stop; first += SHARE_QUADS) {
      var s0 = vec4f();
      var s1 = vec4f();
      var s2 = vec4f();
      var s3 = vec4f();
      let stop = min(first + SHARE_QUADS, K_QUADS);
      for (var quad = first; quad < stop; quad++) {
        let k = quad * 4u;
        let w0 = unpack4(w[k * N_QUADS + column]);
        let w1 = unpack4(w[min(k + 1u, end) * N_QUADS + column]);
        let w2 = unpack4(w[min(k + 2u, end) * N_QUADS + column]);
        let w3 = unpack4(w[min(k + 3u, end) * N_QUADS + column]);
        let x0 = x[r0 + quad];
        let x1 = x[r1 + quad];
        let x2 = x[r2 + quad];
        let x3 = x[r3 + quad];
        s0 = fma(x0.wwww, w3, fma(x0.zzzz, w2, fma(x0.yyyy, w1, fma(x0.xxxx, w0, s0))));
        s1 = fma(x1.wwww, w3, fma(x1.zzzz, w2, fma(x1.yyyy, w1, fma(x1.xxxx, w0, s1))));
        s2 = fma(x2.wwww, w3, fma(x2.zzzz, w2, fma(x2.yyyy, w1, fma(x2.xxxx, w0, s2))));
        s3 = fma(x3.wwww, w3, fma(x3.zzzz, w2, fma(x3.yyyy, w1, fma(x3.xxxx, w0, s3))));
      }
      g0 += s0;
      g1 += s1;
      g2 += s2;
      g3 += s3;
    }
    y0 += g0;
    y1 += g1;
    y2 += g2;
    y3 += g3;
  }

  // 3. Bias, epilogue, store.
  finish(row, column, y0);
  finish(row + 1u, column, y1);
  finish(row + 2u, column, y2);
  finish(row + 3u, column, y3);
}
