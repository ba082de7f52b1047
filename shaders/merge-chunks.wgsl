// Part: one quad of a head's result out of the chunks of its context, in order.
//
// Each chunk's sum and values are relative to its own maximum: they shrink to match where another's is larger (Milakov and
// Gimelshein, 2018). The attention kernels merge in the same order, so the bits are the same. No barriers.
//
// The kernel binds
//   partials       [S, H, chunks, head_quads + 1]  vec4f, of a chunk its values, then (maximum, sum, 0, 0)
//   context_lens   [S]                             u32, at least 1; chunks past it are not read
// and its params have heads, head_quads (vec4s of a head) and chunks.

const MERGED_CHUNK = 128u; // positions of a chunk: CHUNK of attend-chunk.wgsl
const MERGED_BLOCK = 7u;   // chunks that are loaded at once: with the first they are a context of 1,024

fn merged_quad(sequence: u32, head: u32, quad: u32) -> vec4f {
  let stride = params.head_quads + 1u;
  let row = (sequence * params.heads + head) * params.chunks * stride;
  let chunks = (context_lens[sequence] + MERGED_CHUNK - 1u) / MERGED_CHUNK;
  var values = partials[row + quad];
  let first = partials[row + params.head_quads];
  var largest = first.x;
  var sum = first.y;
  for (var next = 1u; next < chunks; next += MERGED_BLOCK) {
    // 1. The loads, none of which waits for another. Past the context the last chunk stands in.
    var block_values: array<vec4f, MERGED_BLOCK>;
    var block_sums: array<vec4f, MERGED_BLOCK>;
    for (var i = 0u; i < MERGED_BLOCK; i++) {
      let chunk = row + min(next + i, chunks - 1u) * stride;
      block_values[i] = partials[chunk + quad];
      block_sums[i] = partials[chunk + params.head_quads];
    }
    // 2. The chain.
    for (var i = 0u; i < MERGED_BLOCK; i++) {
      if (next + i < chunks) {
        let grown = max(largest, block_sums[i].x);
        let shrink = exp(largest - grown);
        let weight = exp(block_sums[i].x - grown);
        largest = grown;
        sum = fma(block_sums[i].y, weight, sum * shrink);
        values = fma(block_values[i], vec4f(weight), values * shrink);
      }
    }
  }
  return values / sum;
}
