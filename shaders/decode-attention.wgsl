// with storage-f32.wgsl | storage-f16.wgsl
// with slots-contiguous.wgsl | slots-paged.wgsl
// with score-key.wgsl
// with attend-chunk.wgsl
// with attend-keys.wgsl | attend-keys-pairs.wgsl
// with attend-max.wgsl | attend-max-subgroup.wgsl
// with attend-narrow.wgsl | attend-wide.wgsl
//
// Attention of one new token a sequence, the context split over workgroups: Flash-Decoding (Dao et al., 2023).
//
// One workgroup owns one head of one sequence and a chunk of 128 positions, so a long context keeps more of the GPU busy and
// takes hardly more time. It leaves the chunk's values unnormalised, with the maximum they are relative to and the sum of
// the weights; merge-chunks.wgsl makes the result of them. What happens in a chunk, attend-chunk.wgsl says.
//
//   dispatch       [H, chunks, S]; workgroups past a sequence's context leave at once
//   q              [S, C]              f32, the queries
//   k, v           [slots, H, HEAD_QUADS · 4]
//   slot_table     see slots-contiguous.wgsl and slots-paged.wgsl
//   context_lens   [S]                 u32, tokens of each sequence, the new one included
//   partials       [S, H, chunks, HEAD_QUADS + 1]  vec4f, of a chunk its values, then (maximum, sum, 0, 0)

override HEADS: u32 = 1u;
override CHUNKS: u32 = 1u;        // in the longest context
override MAX_CONTEXT: u32 = 128u; // positions that slot_table has room for, in each sequence
override SCALE: f32 = 1.0;        // usually 1/√head_size

@group(0) @binding(0) var<storage, read> q: array<vec4f>;
@group(0) @binding(1) var<storage, read> k: array<Keys>;
@group(0) @binding(2) var<storage, read> v: array<Packed4>;
@group(0) @binding(3) var<storage, read> slot_table: array<u32>;
@group(0) @binding(4) var<storage, read> context_lens: array<u32>;
@group(0) @binding(5) var<storage, read_write> partials: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let head = workgroup.x;
  let chunk = workgroup.y;
  let sequence = workgroup.z;

  // 1. The length of the context, where the chunk lies as far as the table goes, and the query: none waits for another.
  let context = context_lens[sequence];
  let first = chunk * CHUNK;
  locate_chunk(sequence, head, first, MAX_CONTEXT, thread);
  let row = sequence * HEADS + head;
  let own_query = q[row * HEAD_QUADS + min(thread, HEAD_QUADS - 1u)];
  if (first >= context) {
    return;
  }

  // 2. The chunk. The query is stored when the keys are on their way.
  let count = min(CHUNK, context - first);
  fetch_keys(head, count, thread);
  if (thread < HEAD_QUADS) {
    query[thread] = own_query * SCALE;
  }
  for (var quad = thread + WORKGROUP_SIZE; quad < HEAD_QUADS; quad += WORKGROUP_SIZE) {
    query[quad] = q[row * HEAD_QUADS + quad] * SCALE;
  }
  let largest = attend_chunk(count, thread);

  // 3. Its values, and behind them what they are relative to.
  let out = (row * CHUNKS + chunk) * (HEAD_QUADS + 1u);
  for (var quad = thread; quad < HEAD_QUADS; quad += WORKGROUP_SIZE) {
    partials[out + quad] = chunk_values(quad);
  }
  if (thread == WORKGROUP_SIZE - 1u) {
    partials[out + HEAD_QUADS] = vec4f(largest, chunk_sum(), 0.0, 0.0);
  }
}
