// Part: the best of the logits that a workgroup of the head has computed, for each of its ROWS rows of x: the sampler then
// need not look at all of them.
//
// A thread keeps the best of those it has finished; at the end the workgroup agrees. Maximum and minimum of integers do not
// depend on an order. The kernel binds bests: keys (score-key.wgsl), then the lowest id with that key, for each workgroup.

const BEST_ROWS = 4u; // the most rows of x that a workgroup has

var<workgroup> best_key: array<atomic<u32>, BEST_ROWS>;
var<workgroup> best_id: array<atomic<u32>, BEST_ROWS>;

var<private> own_keys: vec4u; // one for each row of x: NO_KEY until there is a logit
var<private> own_ids: vec4u;

// Before the kernel's first barrier.
fn clear_bests(thread: u32) {
  if (thread < BEST_ROWS) {
    atomicStore(&best_key[thread], NO_KEY);
    atomicStore(&best_id[thread], 0xffffffffu);
  }
}

// Finished logits of one id, which is higher than those before.
fn include_logits(id: u32, logits: vec4f) {
  let keys = score_keys(logits);
  own_ids = select(own_ids, vec4u(id), keys > own_keys);
  own_keys = max(own_keys, keys);
}

// Every thread of the workgroup calls, at the end.
fn write_bests(thread: u32, workgroup: u32, first_row: u32) {
  for (var r = 0u; r < ROWS; r++) {
    if (own_keys[r] != NO_KEY) {
      atomicMax(&best_key[r], own_keys[r]);
    }
  }
  workgroupBarrier(); // the highest keys are there
  for (var r = 0u; r < ROWS; r++) {
    if (own_keys[r] != NO_KEY && own_keys[r] == atomicLoad(&best_key[r])) {
      atomicMin(&best_id[r], own_ids[r]);
    }
  }
  workgroupBarrier(); // and the lowest ids that have them
  if (thread < ROWS && first_row + thread < params.rows) {
    let at = 2u * params.best_count * (first_row + thread) + params.best_first + workgroup;
    bests[at] = atomicLoad(&best_key[thread]);
    bests[at + params.best_count] = atomicLoad(&best_id[thread]);
  }
}
