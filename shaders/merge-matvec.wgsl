// with storage-f32.wgsl | storage-f16.wgsl | storage-i8.wgsl
// with product.wgsl
// with shares.wgsl | alone.wgsl
// with merge-chunks.wgsl
//
// What decode-attention.wgsl found in the chunks of the context, merged, and the projection behind attention, in one launch:
//
//   y[s, n] = residual[s, n] + Σ_k merged[s, k] · w[k, n] + bias[n]
//
// merge-attention.wgsl and matvec.wgsl one after the other, with the same bits: the heads are merged while the weights
// travel. Every workgroup merges them anew.
//
//   dispatch      [ceil(N_QUADS / COLUMNS), S]
//   partials      [S, H, chunks, D + 4]  f32, of decode-attention
//   context_lens  [S]     u32
//   w             [C, N]
//   bias          [1, N]  f32, and a second row of scales for w in bytes
//   residual, y   [S, N]  f32

override ROW_QUADS: u32 = 6u; // quads of C, rounded up to whole shares

@group(0) @binding(0) var<storage, read> partials: array<vec4f>;
@group(0) @binding(1) var<storage, read> context_lens: array<u32>;
@group(0) @binding(2) var<storage, read> w: array<Packed4>;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;
@group(0) @binding(4) var<storage, read> residual: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4f>;

var<workgroup> row: array<vec4f, ROW_QUADS>;

fn fetch_row(share: u32) {}

fn share_quad(share: u32, i: u32) -> vec4f {
  return row[share * SHARE_QUADS + i];
}

fn x_quad(quad: u32) -> vec4f {
  return row[quad];
}

@compute @workgroup_size(COLUMNS, SPLIT)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(local_invocation_id) thread: vec3u,
  @builtin(local_invocation_index) index: u32,
) {
  let column = workgroup.x * COLUMNS + thread.x;
  let sequence = workgroup.y;
  load_share(thread.y, column);
  let last = min(column, N_QUADS - 1u);
  let finish = finish_of(last);
  let addend = residual[sequence * N_QUADS + last];
  weigh_chunks(sequence, index, COLUMNS * SPLIT);
  for (var quad = index; quad < ROW_QUADS; quad += COLUMNS * SPLIT) {
    var merged = vec4f();
    if (quad < K_QUADS) {
      merged = merged_quad(sequence, quad / HEAD_QUADS, quad % HEAD_QUADS);
    }
    row[quad] = merged;
  }
  workgroupBarrier(); // the merged row is there
  let sum = sum_columns(thread.xy, column);
  if (thread.y == 0u && column < N_QUADS) {
    y[sequence * N_QUADS + column] = biased(sum, finish) + addend;
  }
}
