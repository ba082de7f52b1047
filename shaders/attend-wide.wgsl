// Part: attend-chunk.wgsl for a GPU: a thread a position, then a thread a quad of a group. What costs there is waiting, so all
// loads of a thread set out before the first is used, loops have constant lengths, and arrays live in registers.

const WORKGROUP_SIZE = CHUNK;

override TASKS: u32 = GROUPS * HEAD_QUADS; // quads of all groups; a head of 64 channels has one for each thread
override ROUNDS: u32 = (TASKS + WORKGROUP_SIZE - 1u) / WORKGROUP_SIZE;

var<workgroup> group_values: array<vec4f, TASKS>;
var<workgroup> group_sums: array<f32, GROUPS>;

var<private> own_slot: u32;                      // where this thread's position lies
var<private> keys: array<Keys, MAX_HEAD_QUADS>;  // the key there
var<private> fetched: array<Packed4, GROUP>;     // a quad of the values of a group

// What is past the context is added as a product of -0 and 0: x + -0 is x, whatever x is, and x + 0 would turn -0 into 0.
// The compiler takes a constant -0 for 0, so it is made of bits.
const NO_WEIGHT = 0x80000000u;
const NO_VALUE = Packed4();

// Look up this thread's position of the chunk at `first`. There is a place for each one up to `end`, which may be past the
// context: so the look-up need not wait for the context's length.
fn locate_chunk(sequence: u32, head: u32, first: u32, end: u32, thread: u32) {
  own_slot = slot_of(sequence, min(first + thread, end - 1u));
}

// The key of this thread's position sets out. Past the context slot 0 is read, and not used.
fn fetch_keys(head: u32, count: u32, thread: u32) {
  let row = (select(0u, own_slot, thread < count) * HEADS + head) * HEAD_QUADS;
  for (var i = 0u; i < HEAD_QUADS / KEY_QUADS; i++) {
    keys[i] = k[row / KEY_QUADS + i];
  }
  head_rows[thread] = row;
}

// Attend to the first `count` positions, at least one, whose keys were fetched. Every thread calls, and gets the largest
// score.
fn attend_chunk(count: u32, thread: u32) -> f32 {
  // 1. The maximum begins as the least.
  if (thread == 0u) {
    atomicStore(&largest_key, 0u);
  }
  workgroupBarrier(); // query, rows and maximum are there

  // 2. The values set out too: they arrive while scores are computed.
  fetch_values(thread);

  // 3. A score a thread.
  var products = vec4f(unknown_zero(own_slot));
  for (var i = 0u; i < HEAD_QUADS / KEY_QUADS; i++) {
    products = add_keys(keys[i], i * KEY_QUADS, products);
  }
  let inside = thread < count;
  let score = select(LOWEST, (products.x + products.y) + (products.z + products.w), inside);
  raise_largest(score);
  workgroupBarrier(); // every score is in the maximum

  // 4. A weight a thread.
  let largest = largest_score();
  weights[thread] = bitcast<f32>(select(NO_WEIGHT, bitcast<u32>(exp(score - largest)), inside));
  workgroupBarrier(); // the weights are there

  // 5. A quad of a group a thread, and another one where the head is larger than 64 channels.
  add_group(thread, count);
  for (var round = 1u; round < ROUNDS; round++) {
    fetch_values(round * WORKGROUP_SIZE + thread);
    add_group(round * WORKGROUP_SIZE + thread, count);
  }
  workgroupBarrier(); // the groups are added up
  return largest;
}

// Ask for the quad and the group that are `task`'s: 16 loads, none of which waits for another.
fn fetch_values(task: u32) {
  let begin = min(task, TASKS - 1u) / HEAD_QUADS * GROUP;
  let quad = task % HEAD_QUADS;
  for (var i = 0u; i < GROUP; i++) {
    fetched[i] = v[head_rows[begin + i] + quad];
  }
}

// Add up what was fetched. A group past the context is -0 in all.
fn add_group(task: u32, count: u32) {
  let group = min(task, TASKS - 1u) / HEAD_QUADS;
  let begin = group * GROUP;
  var sum = bitcast<f32>(select(0u, NO_WEIGHT, begin >= count));
  var values = vec4f(sum);
  for (var i = 0u; i < GROUP; i++) {
    let weight = weights[begin + i];
    values = fma(vec4f(weight), unpack4(select(NO_VALUE, fetched[i], begin + i < count)), values);
    sum += weight;
  }
  if (task < TASKS) {
    group_values[task] = values;
    if (task % HEAD_QUADS == 0u) {
      group_sums[group] = sum;
    }
  }
}

// One quad of the chunk's values, weighted relative to the largest score.
fn chunk_values(quad: u32) -> vec4f {
  var values = group_values[quad];
  for (var group = 1u; group < GROUPS; group++) {
    values += group_values[group * HEAD_QUADS + quad];
  }
  return values;
}

// The sum of the chunk's weights.
fn chunk_sum() -> f32 {
  var sum = group_sums[0];
  for (var group = 1u; group < GROUPS; group++) {
    sum += group_sums[group];
  }
  return sum;
}
