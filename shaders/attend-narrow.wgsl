// Part: attend-chunk.wgsl for few threads: a CPU that plays GPU, where a barrier costs by the thread. Nobody waits for loads,
// and loops end with the context.

override WORKGROUP_SIZE: u32 = 4u; // up to 128

var<workgroup> sum_of_weights: f32;
var<workgroup> summed_values: array<vec4f, HEAD_QUADS>;

// Look up the positions of the chunk at `first`, as far as slot_of knows a place: up to `end`, which may be past the context.
fn locate_chunk(sequence: u32, head: u32, first: u32, end: u32, thread: u32) {
  for (var i = thread; i < min(CHUNK, end - first); i += WORKGROUP_SIZE) {
    head_rows[i] = (slot_of(sequence, first + i) * HEADS + head) * HEAD_QUADS;
  }
}

// Nothing is asked for in advance.
fn fetch_keys(head: u32, count: u32, thread: u32) {}

// Attend to the first `count` positions that were located, at least one. Every thread calls, and gets the largest score.
fn attend_chunk(count: u32, thread: u32) -> f32 {
  if (thread == 0u) {
    atomicStore(&largest_key, 0u);
  }
  workgroupBarrier(); // query and rows are there, and the maximum is the least

  // 1. Each thread scores every WORKGROUP_SIZE-th position.
  var own_largest = LOWEST;
  for (var i = thread; i < count; i += WORKGROUP_SIZE) {
    let row = head_rows[i];
    var products = vec4f(unknown_zero(row));
    for (var quad = 0u; quad < HEAD_QUADS; quad += KEY_QUADS) {
      products = add_keys(k[(row + quad) / KEY_QUADS], quad, products);
    }
    let score = (products.x + products.y) + (products.z + products.w);
    own_largest = max(own_largest, score);
    weights[i] = score;
  }
  raise_largest(own_largest);
  workgroupBarrier(); // every score is in the maximum

  // 2. One exponential a position.
  let largest = largest_score();
  for (var i = thread; i < count; i += WORKGROUP_SIZE) {
    weights[i] = exp(weights[i] - largest);
  }
  workgroupBarrier(); // the weights are there

  // 3. The values and the sum of the weights: a quad of all groups a thread.
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
    summed_values[quad] = all_values;
    if (quad == 0u) {
      sum_of_weights = all_sum;
    }
  }
  workgroupBarrier(); // the sums are there
  return largest;
}

// One quad of the chunk's values, weighted relative to the largest score.
fn chunk_values(quad: u32) -> vec4f {
  return summed_values[quad];
}

// The sum of the chunk's weights.
fn chunk_sum() -> f32 {
  return sum_of_weights;
}
