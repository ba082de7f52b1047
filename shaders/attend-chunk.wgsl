// Part: attention of one head of one query over one chunk of its context, by one workgroup.
//
//   largest = max_i s[i],   sum = Σ_i exp(s[i] - largest),   values = Σ_i exp(s[i] - largest) · v[i],   s[i] = query · k[i]
//
// Decode hands the chunks of a context to different workgroups, prefill walks over them; with one order of summation, and one
// way to merge chunks, all give the same bits. The order: a score is one fma chain over the quads of the head, then
// (x + y) + (z + w); a group of 16 positions is one chain; the groups are added in order. Threads are no part of it.
//
// This part has what the two forms share: attend-narrow.wgsl for few threads, attend-wide.wgsl for a thread a position. The
// kernel binds k [slots, H, HEAD_QUADS · 4] of Keys and v of Packed4, has the constant HEADS, and declares
//   slot_of(sequence, position) -> u32   where a position lies
// It fills `query` and calls locate_chunk, fetch_keys, attend_chunk, then chunk_values and chunk_sum.

const CHUNK = 128u;
const GROUP = 16u;
const GROUPS = CHUNK / GROUP;
const MAX_HEAD_QUADS = 32u; // heads of up to 128 channels

override HEAD_QUADS: u32 = 16u; // vec4s of a head in the cache; a constant, so that loops over it unroll

const LOWEST = -3.4028234e38;

var<workgroup> query: array<vec4f, HEAD_QUADS>; // scaled, zero past the head's end
var<workgroup> head_rows: array<u32, CHUNK>;    // where each position's head begins in k and v, in vec4s
var<workgroup> weights: array<f32, CHUNK>;
var<workgroup> largest_key: atomic<u32>;        // of the scores so far: a maximum of integers needs no tree

// 0, as the sign of a place in the cache, which no compiler knows: a chain of fma from a 0 that it knows begins with a plain product,
// and in heads of up to 4 channels, where that is the whole chain, it melts into the additions after it, unrounded.
fn unknown_zero(place: u32) -> f32 {
  return bitcast<f32>(place >> 31u);
}

// The largest of all scores that threads raised it to.
fn largest_score() -> f32 {
  return from_ordered(atomicLoad(&largest_key));
}
