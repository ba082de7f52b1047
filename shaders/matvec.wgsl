// with storage-f32.wgsl | storage-f16.wgsl
// with activation.wgsl
//
// The matrix product of matmul.wgsl for few rows:  y[r, n] = epilogue(Σ_k x[r, k] · w[k, n] + bias[n])
//
// With one row there is nothing to reuse: the time is that of reading w once, so the aim is many loads in flight. A
// workgroup owns COLUMNS × 4 columns of one row and splits k into SPLIT shares, a thread each; their sums meet in
// workgroup memory and are added in order. Neighbouring threads read neighbouring columns. A CPU that plays GPU has no
// loads to hide and pays for barriers: it takes SPLIT = 1.
//
//   dispatch  [ceil(n_quads / COLUMNS), rows]
//   x         [rows, K]  f32
//   w         [K, N]     as GPT-2's Conv1D stores it
//   bias      [N]        f32
//   residual  [rows, N]  f32, read when EPILOGUE is ADD_RESIDUAL
//   y         [rows, N]  f32

override COLUMNS: u32 = 8u; // vec4 columns of a workgroup: 8 make 128 neighbouring bytes of f32
override SPLIT: u32 = 32u;  // threads that share a column

const NONE = 0u;
const GELU_TANH = 1u;
const GELU_ERF = 2u;
const ADD_RESIDUAL = 3u;
override EPILOGUE: u32 = NONE;

struct Params {
  depth: u32,   // K
  k_quads: u32, // vec4s in a row of x
  n_quads: u32, // vec4s in a row of w, bias, residual and y
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<Packed4>;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;
@group(0) @binding(4) var<storage, read> residual: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4f>;

var<workgroup> partial: array<vec4f, COLUMNS * SPLIT>;

@compute @workgroup_size(COLUMNS, SPLIT)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_id) thread: vec3u) {
  let row = workgroup.y;
  let column = workgroup.x * COLUMNS + thread.x;
  let k_quads = params.k_quads; // read once: not every compiler does so by itself
  let n_quads = params.n_quads;
  let mine = column < n_quads;

  // 1. This thread's share of k. Where K is no multiple of 4, x is zero past K, but w has no such rows: the last one
  //    stands in for them. fma is spelled out, so that no compiler rounds matmul's form differently.
  let share = (k_quads + SPLIT - 1u) / SPLIT;
  let first = thread.y * share;
  let stop = min(first + share, k_quads);
  var sum = vec4f();
  if (mine) {
    let end = params.depth - 1u;
    for (var quad = first; quad < stop; quad++) {
      let k = quad * 4u;
      let w0 = unpack4(w[k * n_quads + column]);
      let w1 = unpack4(w[min(k + 1u, end) * n_quads + column]);
      let w2 = unpack4(w[min(k + 2u, end) * n_quads + column]);
      let w3 = unpack4(w[min(k + 3u, end) * n_quads + column]);
      let x0 = x[row * k_quads + quad];
      sum = fma(x0.wwww, w3, fma(x0.zzzz, w2, fma(x0.yyyy, w1, fma(x0.xxxx, w0, sum))));
    }
  }

  // 2. The shares of a column, added in order by its first thread.
  if (SPLIT > 1u) {
    partial[thread.y * COLUMNS + thread.x] = sum;
    workgroupBarrier(); // every share is written
    if (thread.y == 0u) {
      for (var share = 1u; share < SPLIT; share++) {
        sum += partial[share * COLUMNS + thread.x];
      }
    }
  }

  // 3. Bias, epilogue, store.
  if (thread.y == 0u && mine) {
    let at = row * n_quads + column;
    var value = sum + bias[column];
    switch (EPILOGUE) {
      case GELU_TANH: { value = gelu_tanh(value); }
      case GELU_ERF: { value = gelu_erf(value); }
      case ADD_RESIDUAL: { value += residual[at]; }
      default: {}
    }
    y[at] = value;
  }
}
