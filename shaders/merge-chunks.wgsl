// Part: the results of a head out of the chunks of its context, in order.
//
// Each chunk's sum and values are relative to its own maximum: they shrink to match where another's is larger (Milakov and
// Gimelshein, 2018). What each chunk does to a head's result, one thread a head finds out first; then every quad of the
// head is a short chain of fma. The attention kernels merge in the same order, so the bits are the same.
//
// The kernel binds
//   partials       [S, HEADS, CHUNKS, HEAD_QUADS + 1]  vec4f, of a chunk its values, then (maximum, sum, 0, 0)
//   context_lens   [S]                                 u32, at least 1; chunks past it are not read
// and calls weigh_chunks, then merged_quad.

override HEADS: u32 = 1u;
override HEAD_QUADS: u32 = 1u; // vec4s of a head
override CHUNKS: u32 = 1u;     // chunks that partials has room for

const MERGED_CHUNK = 128u; // positions of a chunk: CHUNK of attend-chunk.wgsl
const MERGED_BLOCK = 8u;   // chunks that are loaded at once: a context of 1,024

var<workgroup> chunk_factors: array<vec2f, HEADS * CHUNKS>; // what shrinks the result so far, and the chunk's own weight
var<workgroup> head_sums: array<f32, HEADS>;

fn chunks_of(sequence: u32) -> u32 {
  return (context_lens[sequence] + MERGED_CHUNK - 1u) / MERGED_CHUNK;
}

// The factors and sums of all heads of a sequence. Every thread of the workgroup calls.
fn weigh_chunks(sequence: u32, thread: u32, threads: u32) {
  let chunks = chunks_of(sequence);
  let stride = HEAD_QUADS + 1u;
  for (var head = thread; head < HEADS; head += threads) {
    let row = (sequence * HEADS + head) * CHUNKS * stride + HEAD_QUADS;
    let first = partials[row];
    var largest = first.x;
    var sum = first.y;
    for (var next = 1u; next < chunks; next += MERGED_BLOCK) {
      // The loads, none of which waits for another; then the chain. Past the context the last chunk stands in.
      var block: array<vec2f, MERGED_BLOCK>;
      for (var i = 0u; i < MERGED_BLOCK; i++) {
        block[i] = partials[row + min(next + i, chunks - 1u) * stride].xy;
      }
      for (var i = 0u; i < MERGED_BLOCK; i++) {
        if (next + i < chunks) {
          let grown = max(largest, block[i].x);
          let shrink = exp(largest - grown);
          let weight = exp(block[i].x - grown);
          largest = grown;
          sum = fma(block[i].y, weight, sum * shrink);
          chunk_factors[head * CHUNKS + next + i] = vec2f(shrink, weight);
        }
      }
    }
    head_sums[head] = sum;
  }
  workgroupBarrier(); // the factors of every head are there
}

// One quad of a head's result.
fn merged_quad(sequence: u32, head: u32, quad: u32) -> vec4f {
  let chunks = chunks_of(sequence);
  let stride = HEAD_QUADS + 1u;
  let row = (sequence * HEADS + head) * CHUNKS * stride + quad;
  var values = partials[row];
  for (var next = 1u; next < chunks; next += MERGED_BLOCK) {
    var block: array<vec4f, MERGED_BLOCK>;
    for (var i = 0u; i < MERGED_BLOCK; i++) {
      block[i] = partials[row + min(next + i, chunks - 1u) * stride];
    }
    for (var i = 0u; i < MERGED_BLOCK; i++) {
      if (next + i < chunks) {
        let factors = chunk_factors[head * CHUNKS + next + i];
        values = fma(block[i], vec4f(factors.y), values * factors.x);
      }
    }
  }
  return values / head_sums[head];
}
