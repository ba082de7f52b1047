// Part: attention of one head of one query over one chunk of its context, by one workgroup.
//
//   largest = max_i s[i],   sum = Σ_i exp(s[i] - largest),   values = Σ_i exp(s[i] - largest) · v[i],   s[i] = query · k[i]
//
// Decode hands the chunks of a context to different workgroups, prefill walks over them; with this one text, and merge-chunks.wgsl's
// recurrence from chunk to chunk, all give the same bits. The order: a score is one fma chain over the quads of the head, then
// (x + y) + (z + w); the values and the sum of a group of 16 positions are one chain; the groups are added in order. WORKGROUP_SIZE
// and UNROLLED are no part of it.
//
// The kernel binds k and v [slots, H, HEAD_QUADS · 4], has params.heads, and declares
//   slot_of(sequence, position) -> u32   where a position lies
//   query_quad(at) -> vec4f              a quad of the query, scaled, zero past the head's end
// and calls locate_chunk, attend_chunk, then chunk_values and chunk_sum.

const CHUNK = 128u;
const GROUP = 16u;
const GROUPS = CHUNK / GROUP;
const MAX_HEAD_QUADS = 32u;            // heads of up to 128 channels

override HEAD_QUADS: u32 = 16u;        // vec4s of a head in the cache; a constant, so that loops over it unroll
override WORKGROUP_SIZE: u32 = 128u;   // 4 to 128; 4 on a CPU that plays GPU, where a barrier costs by the thread

// A thread a position: loops are of constant length, so that all loads of a thread are in flight together. With fewer threads
// nobody waits for loads, and loops end with the context.
override UNROLLED: bool = WORKGROUP_SIZE == CHUNK;

const LOWEST = -3.4028234e38;

var<workgroup> head_rows: array<u32, CHUNK>; // where each position's head begins in k and v, in vec4s
var<workgroup> scores: array<f32, CHUNK>;
var<workgroup> weights: array<f32, CHUNK>;
var<workgroup> group_values: array<vec4f, GROUPS * HEAD_QUADS>;
var<workgroup> group_sums: array<f32, GROUPS>;

// Look up the `count` positions from `first` on. They may be more than attend_chunk is told, but slot_of must know a place for each.
fn locate_chunk(sequence: u32, head: u32, first: u32, count: u32, thread: u32) {
  for (var i = thread; i < count; i += WORKGROUP_SIZE) {
    head_rows[i] = (slot_of(sequence, first + i) * params.heads + head) * HEAD_QUADS;
  }
}

// Attend to the chunk's first `count` positions, at least one; the query's quads are query_quad(query) and on. Every thread
// calls, and every thread gets the largest score.
fn attend_chunk(query: u32, count: u32, thread: u32) -> f32 {
  workgroupBarrier(); // every position is located

  // 1. The values that step 4 begins with set out now: they arrive while the scores are computed.
  var fetched: array<Packed4, GROUP>;
  if (UNROLLED) {
    fetch_group(thread, count, &fetched);
  }

  // 2. A score a thread. Those past the context are lowest, as far as step 3 looks.
  let scored = select((count + 3u) / 4u * 4u, CHUNK, UNROLLED);
  for (var i = thread; i < scored; i += WORKGROUP_SIZE) {
    var score = LOWEST;
    if (i < count) {
      let row = head_rows[i];
      var products = vec4f();
      for (var quad = 0u; quad < HEAD_QUADS; quad++) {
        products = fma(query_quad(query + quad), unpack4(k[row + quad]), products);
      }
      score = (products.x + products.y) + (products.z + products.w);
    }
    scores[i] = score;
  }
  workgroupBarrier(); // the scores are there

  // 3. The largest, found by every thread for itself: cheaper than a tree and its barriers. Then an exponential a thread.
  var lanes = vec4f(LOWEST);
  for (var i = 0u; i < scored; i += 4u) {
    lanes = max(lanes, vec4f(scores[i], scores[i + 1u], scores[i + 2u], scores[i + 3u]));
  }
  let largest = max(max(lanes.x, lanes.y), max(lanes.z, lanes.w));
  for (var i = thread; i < count; i += WORKGROUP_SIZE) {
    weights[i] = exp(scores[i] - largest);
  }
  workgroupBarrier(); // the weights are there

  // 4. A thread adds up one quad of one group's values. Loops of constant length pass over what is past the context: its weight
  //    would be stale, and nothing may be added, not even a zero.
  for (var task = thread; task < HEAD_QUADS * groups_of(count); task += WORKGROUP_SIZE) {
    let begin = task / HEAD_QUADS * GROUP;
    let mine = min(GROUP, count - begin);
    if (!UNROLLED || task >= WORKGROUP_SIZE) {
      fetch_group(task, count, &fetched);
    }
    var values = vec4f();
    var sum = 0.0;
    for (var i = 0u; i < select(mine, GROUP, UNROLLED); i++) {
      let weight = weights[begin + i];
      values = select(values, fma(vec4f(weight), unpack4(fetched[i]), values), i < mine);
      sum = select(sum, sum + weight, i < mine);
    }
    group_values[task] = values;
    if (task % HEAD_QUADS == 0u) {
      group_sums[task / HEAD_QUADS] = sum;
    }
  }
  workgroupBarrier(); // the groups are there
  return largest;
}

// The quad and the group that are `task`'s: 16 loads, none of which waits for another. The last position stands in for those after it.
fn fetch_group(task: u32, count: u32, fetched: ptr<function, array<Packed4, GROUP>>) {
  let quad = task % HEAD_QUADS;
  let begin = task / HEAD_QUADS * GROUP;
  for (var i = 0u; i < select(min(GROUP, count - begin), GROUP, UNROLLED); i++) {
    fetched[i] = v[head_rows[min(begin + i, count - 1u)] + quad];
  }
}

fn groups_of(count: u32) -> u32 {
  return (count + GROUP - 1u) / GROUP;
}

// One quad of the chunk's weighted values, relative to the largest score.
fn chunk_values(quad: u32, count: u32) -> vec4f {
  let groups = groups_of(count);
  var values = group_values[quad];
  for (var group = 1u; group < select(groups, GROUPS, UNROLLED); group++) {
    values = select(values, values + group_values[group * HEAD_QUADS + quad], group < groups);
  }
  return values;
}

// The sum of the chunk's exponentials, relative to the largest score.
fn chunk_sum(count: u32) -> f32 {
  let groups = groups_of(count);
  var sum = group_sums[0];
  for (var group = 1u; group < select(groups, GROUPS, UNROLLED); group++) {
    sum = select(sum, sum + group_sums[group], group < groups);
  }
  return sum;
}
