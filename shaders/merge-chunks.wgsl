// Part: the results of a head out of the chunks of its context, in order.
//
// Each chunk's sum and values are relative to its own maximum: they shrink to match where another's is larger (Milakov and
// Gimelshein, 2018). What a chunk does to a head's result depends on maxima alone, so all threads find that out side by
// side; then every quad of a head is a short chain of fma. The attention kernels merge in the same order, so the bits are
// the same.
//
// The kernel binds
//   partials       [S, HEADS, CHUNKS, HEAD_QUADS + 1]  vec4f, of a chunk its values, then (maximum, sum, 0, 0)
//   context_lens   [S]                                 u32, at least 1; chunks past it are not read
// and calls weigh_chunks, then merged_quad.

override HEADS: u32 = 1u;
override HEAD_QUADS: u32 = 1u; // vec4s of a head
override CHUNKS: u32 = 1u;     // chunks that partials has room for
override CHUNK_SLOTS: u32 = HEADS * CHUNKS;

const MERGED_CHUNK = 128u; // positions of a chunk: CHUNK of attend-chunk.wgsl
const MERGED_BLOCK = 8u;   // chunks that are loaded at once: a context of 1,024

// Of each chunk but the first: what shrinks the result so far, the chunk's own weight, and its sum.
struct ChunkShare {
  shrink: f32,
  weight: f32,
  sum: f32,
}
var<workgroup> chunk_shares: array<ChunkShare, CHUNK_SLOTS>;

fn chunks_of(sequence: u32) -> u32 {
  return (context_lens[sequence] + MERGED_CHUNK - 1u) / MERGED_CHUNK;
}

// The shares of all chunks of all heads of a sequence. Every thread of the workgroup calls.
fn weigh_chunks(sequence: u32, thread: u32, threads: u32) {
  let chunks = chunks_of(sequence);
  let stride = HEAD_QUADS + 1u;
  for (var i = thread; i < HEADS * CHUNKS; i += threads) {
    let chunk = i % CHUNKS;
    if (chunk < chunks) {
      let row = (sequence * HEADS + i / CHUNKS) * CHUNKS * stride + HEAD_QUADS;
      let own = partials[row + chunk * stride];
      var before = own.x; // the largest maximum of the chunks before; of the first one nobody asks
      for (var first = 0u; first < chunk; first += MERGED_BLOCK) {
        for (var j = 0u; j < MERGED_BLOCK; j++) { // of constant length, so that no load waits for another
          let other = min(first + j, chunk - 1u);
          let maximum = partials[row + other * stride].x;
          before = select(max(before, maximum), maximum, first + j == 0u);
        }
      }
      let grown = max(before, own.x);
      chunk_shares[i] = ChunkShare(exp(before - grown), exp(own.x - grown), own.y);
    }
  }
  workgroupBarrier(); // the shares of every chunk are there
}

// One quad of a head's result.
fn merged_quad(sequence: u32, head: u32, quad: u32) -> vec4f {
  let chunks = chunks_of(sequence);
  let stride = HEAD_QUADS + 1u;
  let row = (sequence * HEADS + head) * CHUNKS * stride + quad;
  var values = partials[row];
  var sum = chunk_shares[head * CHUNKS].sum;
  for (var next = 1u; next < chunks; next += MERGED_BLOCK) {
    // 1. The loads, none of which waits for another. Past the context the last chunk stands in.
    var block: array<vec4f, MERGED_BLOCK>;
    for (var i = 0u; i < MERGED_BLOCK; i++) {
      block[i] = partials[row + min(next + i, chunks - 1u) * stride];
    }
    // 2. The chain.
    for (var i = 0u; i < MERGED_BLOCK; i++) {
      if (next + i < chunks) {
        let share = chunk_shares[head * CHUNKS + next + i];
        sum = fma(share.sum, share.weight, sum * share.shrink);
        values = fma(block[i], vec4f(share.weight), values * share.shrink);
      }
    }
  }
  return values / sum;
}
