// Part: attention of one head of one query over one chunk of its context, by one workgroup.
//
//   largest = max_i s[i],   sum = Σ_i exp(s[i] - largest),   values = Σ_i exp(s[i] - largest) · v[i],   s[i] = query · k[i]
//
// Decode hands the chunks of a context to different workgroups, prefill walks over them; by this one text, and one way to
// merge chunks, all give the same bits. The order: a score is one fma chain over the quads of the head, then
// (x + y) + (z + w); a group of 16 positions is one chain; the groups are added in order. Threads are no part of it.
//
// The kernel binds k and v [slots, H, HEAD_QUADS · 4] of Packed4, has the constant HEADS, and declares
//   slot_of(sequence, position) -> u32   where a position lies
//   query_quad(at) -> vec4f              a quad of the query, scaled, zero past the head's end
// and calls locate_chunk, attend_chunk, then chunk_values and chunk_sum.

const CHUNK = 128u;
const GROUP = 16u;
const GROUPS = CHUNK / GROUP;
const MAX_HEAD_QUADS = 32u;          // heads of up to 128 channels

override HEAD_QUADS: u32 = 16u;      // vec4s of a head in the cache; a constant, so that loops over it unroll
override WORKGROUP_SIZE: u32 = 128u; // 4 to 128; 4 on a CPU that plays GPU, where a barrier costs by the thread

// A thread a position, and loops of constant length, so that all loads of a thread are under way together. With fewer
// threads nobody waits for loads, and loops end with the context.
override WIDE: bool = WORKGROUP_SIZE == CHUNK;
override SPLIT: u32 = select(1u, GROUPS, WIDE); // threads that share a quad of the values, a group each

const LOWEST = -3.4028234e38;

var<workgroup> head_rows: array<u32, CHUNK>; // where each position's head begins in k and v, in vec4s
var<workgroup> scores: array<f32, CHUNK>;
var<workgroup> weights: array<f32, CHUNK>;
var<workgroup> split_values: array<vec4f, SPLIT * HEAD_QUADS>;
var<workgroup> split_sums: array<f32, SPLIT>;

// Look up the `count` positions from `first` on; more than attend_chunk is told, if slot_of knows a place for each.
fn locate_chunk(sequence: u32, head: u32, first: u32, count: u32, thread: u32) {
  for (var i = thread; i < count; i += WORKGROUP_SIZE) {
    head_rows[i] = (slot_of(sequence, first + i) * HEADS + head) * HEAD_QUADS;
  }
}

// Attend to the chunk's first `count` positions, at least one; the query begins at query_quad(query). Every thread calls,
// and every thread gets the largest score.
fn attend_chunk(query: u32, count: u32, thread: u32) -> f32 {
  workgroupBarrier(); // every position is located

  // 1. The values that step 4 begins with set out now: they arrive while scores are computed.
  var fetched: array<Packed4, GROUP>;
  if (WIDE) {
    fetch_group(thread, count, &fetched);
  }

  // 2. Each thread scores every WORKGROUP_SIZE-th position. Past the context scores are lowest, as far as step 3 looks.
  let scored = select((count + 3u) / 4u * 4u, CHUNK, WIDE);
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

  // 3. The largest, found by every thread for itself: a tree would need barriers. Then one exponential a position.
  var lanes = vec4f(LOWEST);
  for (var i = 0u; i < scored; i += 4u) {
    lanes = max(lanes, vec4f(scores[i], scores[i + 1u], scores[i + 2u], scores[i + 3u]));
  }
  let largest = max(max(lanes.x, lanes.y), max(lanes.z, lanes.w));
  for (var i = thread; i < count; i += WORKGROUP_SIZE) {
    weights[i] = exp(scores[i] - largest);
  }
  workgroupBarrier(); // the weights are there

  // 4. The values and the sum of the weights, group by group.
  if (WIDE) {
    add_groups_wide(count, thread, &fetched);
  } else {
    add_groups(count, thread);
  }
  workgroupBarrier(); // the groups are added up
  return largest;
}

// A quad of one group a thread, of which `fetched` holds the first. What is past the context is not added, not even as a zero:
// it would turn -0 into 0.
fn add_groups_wide(count: u32, thread: u32, fetched: ptr<function, array<Packed4, GROUP>>) {
  for (var task = thread; task < HEAD_QUADS * groups_of(count); task += WORKGROUP_SIZE) {
    if (task >= WORKGROUP_SIZE) {
      fetch_group(task, count, fetched);
    }
    let begin = task / HEAD_QUADS * GROUP;
    var values = vec4f();
    var sum = 0.0;
    for (var i = 0u; i < GROUP; i++) {
      let weight = weights[begin + i];
      let inside = begin + i < count;
      values = select(values, fma(vec4f(weight), unpack4((*fetched)[i]), values), inside);
      sum = select(sum, sum + weight, inside);
    }
    split_values[task] = values;
    if (task % HEAD_QUADS == 0u) {
      split_sums[task / HEAD_QUADS] = sum;
    }
  }
}

// The quad and the group that are `task`'s: 16 loads, none of which waits for another. Past the context the last position
// stands in.
fn fetch_group(task: u32, count: u32, fetched: ptr<function, array<Packed4, GROUP>>) {
  let begin = task / HEAD_QUADS * GROUP;
  for (var i = 0u; i < GROUP; i++) {
    (*fetched)[i] = v[head_rows[min(begin + i, count - 1u)] + task % HEAD_QUADS];
  }
}

// A quad of all groups a thread.
fn add_groups(count: u32, thread: u32) {
  for (var quad = thread; quad < HEAD_QUADS; quad += WORKGROUP_SIZE) {
    var all_values = vec4f();
    var all_sum = 0.0;
    for (var begin = 0u; begin < count; begin += GROUP) {
      var values = vec4f();
      var sum = 0.0;
      for (var i = begin; i < min(begin + GROUP, count); i++) {
        let weight = weights[i];
        values = fma(vec4f(weight), unpack4(v[head_rows[i] + quad]), values);
        sum += weight;
      }
      all_values = select(all_values + values, values, begin == 0u);
      all_sum += sum;
    }
    split_values[quad] = all_values;
    if (quad == 0u) {
      split_sums[0] = all_sum;
    }
  }
}

fn groups_of(count: u32) -> u32 {
  return (count + GROUP - 1u) / GROUP;
}

// One quad of the chunk's values, weighted relative to the largest score.
fn chunk_values(quad: u32, count: u32) -> vec4f {
  var values = split_values[quad];
  for (var group = 1u; group < SPLIT; group++) {
    values = select(values, values + split_values[group * HEAD_QUADS + quad], group < groups_of(count));
  }
  return values;
}

// The sum of the chunk's weights.
fn chunk_sum(count: u32) -> f32 {
  var sum = split_sums[0];
  for (var group = 1u; group < SPLIT; group++) {
    sum = select(sum, sum + split_sums[group], group < groups_of(count));
  }
  return sum;
}
