// with storage-f32.wgsl | storage-f16.wgsl
// with score-key.wgsl
// with attend-chunk.wgsl
// with attend-keys.wgsl | attend-keys-pairs.wgsl
// with attend-max.wgsl | attend-max-subgroup.wgsl
// with attend-narrow.wgsl | attend-wide.wgsl
//
// Causal attention over contiguous keys and values.
//
//   y[t, h] = softmax_j(scale · q[t, h] · k[j, h]) · v[j, h]   over the positions j that token t may see
//
// One workgroup owns one head of one token. It walks over the context in chunks; attend-chunk.wgsl says what happens in one.
// The softmax is online (Milakov and Gimelshein, 2018): one pass over the context, and no row of scores is ever stored.
// Read this kernel first: paged-attention.wgsl differs from it in slot_of alone.
//
//   dispatch       [H, T]
//   qkv            [T, 3 · C]  f32, of which the query is read; rows padded to `qkv_stride`
//   k, v           [slots, H, HEAD_QUADS · 4]
//   strip_starts   [S]         u32, slot at which each sequence's strip begins
//   context_lens   [S]         u32, tokens of each sequence, the new ones included
//   query_starts   [S + 1]     u32, the new tokens of sequence s are rows query_starts[s] … query_starts[s + 1] - 1
//   sequence_of    [T]         u32, the sequence of each row; NONE: a row of padding, for which nothing is done
//   y              [T, C]      f32, rows padded to `y_stride`

override COLUMNS: u32 = (HEAD_QUADS + WORKGROUP_SIZE - 1u) / WORKGROUP_SIZE; // quads of the output that are a thread's
const MAX_COLUMNS = 8u; // COLUMNS for the largest head and the smallest WORKGROUP_SIZE

override HEADS: u32 = 1u;
const NONE = 0xffffffffu;

struct Params {
  head_size: u32,
  qkv_stride: u32,
  y_stride: u32,
  scale: f32,      // usually 1/√head_size
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;
@group(0) @binding(2) var<storage, read> k: array<Keys>;
@group(0) @binding(3) var<storage, read> v: array<Packed4>;
@group(0) @binding(4) var<storage, read> strip_starts: array<u32>;
@group(0) @binding(5) var<storage, read> context_lens: array<u32>;
@group(0) @binding(6) var<storage, read> query_starts: array<u32>;
@group(0) @binding(7) var<storage, read> sequence_of: array<u32>;
@group(0) @binding(8) var<storage, read_write> y: array<f32>;

// Where position `position` of a sequence lies in the cache.
fn slot_of(sequence: u32, position: u32) -> u32 {
  return strip_starts[sequence] + position;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let head = workgroup.x;
  let token = workgroup.y;
  let sequence = sequence_of[token];
  if (sequence == NONE) { // the same for all threads: no barrier is missed
    return;
  }

  // 1. How much this token sees: the sequence's whole context, less the new tokens that come after this one.
  let after = query_starts[sequence + 1u] - 1u - token;
  let visible = context_lens[sequence] - after;

  // 2. The query, scaled, where all threads can read it; zero past the head's end, as in the cache.
  let channel = head * params.head_size;
  for (var quad = thread; quad < HEAD_QUADS; quad += WORKGROUP_SIZE) {
    var values = vec4f();
    for (var i = 0u; i < 4u && quad * 4u + i < params.head_size; i++) {
      values[i] = qkv[token * params.qkv_stride + channel + quad * 4u + i];
    }
    query[quad] = values * params.scale;
  }

  // 3. Chunk by chunk over the context. The maximum so far, the sum of exponentials and the weighted values are kept
  //    relative to that maximum; when it grows, what was gathered shrinks to match. merge-chunks.wgsl does the same.
  var largest = LOWEST;
  var sum = 0.0;
  var values: array<vec4f, MAX_COLUMNS>;
  for (var first = 0u; first < visible; first += CHUNK) {
    let count = min(CHUNK, visible - first);
    locate_chunk(sequence, head, first, visible, thread);
    fetch_keys(head, count, thread);
    let chunk_largest = attend_chunk(count, thread); // its first barrier is the query's too
    let grown = max(largest, chunk_largest);
    let shrink = exp(largest - grown);
    let weight = exp(chunk_largest - grown);
    largest = grown;
    let chunk_weights = chunk_sum();
    sum = select(fma(chunk_weights, weight, sum * shrink), chunk_weights, first == 0u);
    for (var column = 0u; column < COLUMNS; column++) {
      let quad = min(column * WORKGROUP_SIZE + thread, HEAD_QUADS - 1u);
      let chunk = chunk_values(quad);
      values[column] = select(fma(chunk, vec4f(weight), values[column] * shrink), chunk, first == 0u);
    }
  }

  // 4. Divide and store, channel by channel: a head need not begin at a multiple of four. The last head also writes the
  //    zeros behind the row.
  let out = token * params.y_stride;
  for (var column = 0u; column < COLUMNS; column++) {
    let quad = column * WORKGROUP_SIZE + thread;
    let result = values[column] / sum;
    for (var i = 0u; i < 4u && quad * 4u + i < params.head_size; i++) {
      y[out + channel + quad * 4u + i] = result[i];
    }
  }
  if (head == HEADS - 1u && thread == 0u) {
    for (var c = HEADS * params.head_size; c < params.y_stride; c++) {
      y[out + c] = 0.0;
    }
  }
}
