// with storage-f32.wgsl | storage-f16.wgsl | storage-i8.wgsl
// with activation.wgsl
// with product.wgsl
//
// matmul.wgsl as one would first write it:  y[r, n] = epilogue(Σ_k x[r, k] · w[k, n] + bias[n])
//
// One thread computes one output. For each multiplication it loads two numbers, and nothing that it has loaded serves
// anything else: the first rung of the ladder, to be read and to be measured against, never chosen. The sum is one chain of
// fma along k, as in matmul-tiles.wgsl and matmul-registers.wgsl, so all three give the same bits.
//
//   dispatch  [ceil(4 · N_QUADS / 16), ceil(rows / 16)]: the columns of the padding too, which come out as zeros
//   x         [rows, K]  f32
//   w         [K, N]     as GPT-2's Conv1D stores it
//   bias      [1, N]     f32, and a second row of scales for w in bytes
//   residual  [rows, N]  f32, read when EPILOGUE is ADD_RESIDUAL
//   y         [rows, N]  f32

const SIDE = 16u; // of a workgroup: as many columns as rows

struct Params {
  rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<Packed4>;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(SIDE, SIDE)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x;
  let row = id.y;
  if (column >= 4u * N_QUADS || row >= params.rows) {
    return;
  }
  let quad = column / 4u;
  let lane = column % 4u; // weights are stored in quads, of which this thread wants one element

  // 1. The sum.
  var sum = 0.0;
  for (var k = 0u; k < DEPTH; k++) {
    sum = fma(x[row * 4u * K_QUADS + k], unpack4(w[k * N_QUADS + quad])[lane], sum);
  }

  // 2. Bias, epilogue, store.
  let at = row * 4u * N_QUADS + column;
  var value = activate(biased(vec4f(sum), finish_of(quad)))[lane];
  if (EPILOGUE == ADD_RESIDUAL) {
    value += residual[at];
  }
  y[at] = value;
}
