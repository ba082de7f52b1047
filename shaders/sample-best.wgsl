// Part of sample: what is known of a row without a look at it, from the head's `bests` (head-best.wgsl).
//
// The head's workgroups have each told the best of their share of the logits. The row's best is the best of them, and for a
// top-k only the shares count whose best is not below the k-th of those. All this is of logits: with a repetition penalty
// the scores are others.

override BESTS: u32 = 0u;      // shares of a row; 0: nothing is known
override BEST_QUADS: u32 = 0u; // quads of a stripe: share i has the stripes i, i + BESTS, …; 0: which are whose is not known

const BEST_LANES = 128u; // threads that look at the shares; the results do not depend on it
const BEST_AHEAD = 9u;   // shares that each of them asks for at once: 1,056 of a GPU's head in one go
const BEST_TEAM = 16u;   // threads that look at what those found

// The best of a lane, at [lane % 4] of quad lane / 4; the same of a team's threads, behind them.
var<workgroup> best_keys: array<vec4u, (BEST_LANES + BEST_TEAM) / 4u>;
var<workgroup> best_ids: array<vec4u, (BEST_LANES + BEST_TEAM) / 4u>;

fn max_of(x: vec4u) -> u32 {
  return max(max(x.x, x.y), max(x.z, x.w));
}

fn min_of(x: vec4u) -> u32 {
  return min(min(x.x, x.y), min(x.z, x.w));
}

fn keep_best(place: u32, key: u32, id: u32) {
  best_keys[place / 4u][place % 4u] = key;
  best_ids[place / 4u][place % 4u] = id;
}

// The highest key and the lowest id with it, of the first..first + count quads of best_keys.
fn best_of_quads(first: u32, step: u32, count: u32) -> vec2u {
  var keys = best_keys[first];
  var ids = best_ids[first];
  for (var i = 1u; i < count; i++) {
    let k = best_keys[first + i * step];
    let other = best_ids[first + i * step];
    ids = select(select(ids, min(ids, other), k == keys), other, k > keys);
    keys = max(keys, k);
  }
  let key = max_of(keys);
  return vec2u(key, min_of(select(vec4u(NONE), ids, keys == vec4u(key))));
}

// Starts the search for the best of row s, whoever needs it; two barriers.
fn find_best(thread: u32, s: u32) {
  let start = 2u * BESTS * s;
  let last = max(BESTS, 1u) - 1u;
  for (var lane = thread; lane < BEST_LANES; lane += WORKGROUP_SIZE) {
    var key = NO_KEY;
    var id = NONE;
    for (var first = lane; first < BESTS; first += BEST_AHEAD * BEST_LANES) {
      var keys: array<u32, BEST_AHEAD>;
      var ids: array<u32, BEST_AHEAD>;
      for (var i = 0u; i < BEST_AHEAD; i++) { // past the end the last one once more, which changes nothing
        let share = min(first + i * BEST_LANES, last);
        keys[i] = bests[start + share];
        ids[i] = bests[start + BESTS + share];
      }
      for (var i = 0u; i < BEST_AHEAD; i++) {
        id = select(select(id, min(id, ids[i]), keys[i] == key), ids[i], keys[i] > key);
        key = max(key, keys[i]);
      }
    }
    keep_best(lane, key, id);
  }
  workgroupBarrier(); // every lane's best is there
  for (var i = thread; i < BEST_TEAM; i += WORKGROUP_SIZE) {
    let best = best_of_quads(i, BEST_TEAM, BEST_LANES / 4u / BEST_TEAM);
    keep_best(BEST_LANES + i, best.x, best.y);
  }
  workgroupBarrier(); // every team thread's best is there
}

// The highest key of the row and the lowest id that has it, after find_best: for any thread.
fn found_best() -> vec2u {
  return best_of_quads(BEST_LANES / 4u, 1u, BEST_TEAM / 4u);
}

fn is_score(key: u32) -> bool {
  return key > KEY_OF_MINUS_INFINITY && key < KEY_OF_BAD;
}

// The shares' bests in `lanes`, some to a lane, as if a lane had looked at their logits. Before find_best's barriers.
fn lanes_from_bests(thread: u32, s: u32) {
  let start = 2u * BESTS * s;
  let last = max(BESTS, 1u) - 1u;
  for (var lane = thread; lane < LANES; lane += WORKGROUP_SIZE) {
    var key = KEY_OF_MINUS_INFINITY;
    for (var share = lane; share < BESTS; share += 2u * LANES) { // two at once: a GPU's head has a few more than 1,024
      let first = bests[start + share];
      let second = bests[start + min(share + LANES, last)];
      key = max(key, max(first, select(NO_KEY, second, share + LANES < BESTS)));
    }
    lanes[lane] = bitcast<u32>(from_ordered(key));
  }
}

// Lists every token with a score of at least `bound`, after lanes_from_bests and bound_of: all shares of the lanes that have
// one are looked at.
fn list_from_bests(thread: u32, row: Row, bound: f32) {
  for (var lane = thread; lane < LANES; lane += WORKGROUP_SIZE) {
    if (bitcast<f32>(lanes[lane]) >= bound) {
      for (var share = lane; share < BESTS; share += LANES) {
        let place = atomicAdd(&hot_count, 1u);
        if (place < LANES) {
          atomicStore(&bins[place], share);
        } else { // so many are too many
          atomicMax(&candidate_count, CAPACITY + 1u);
        }
      }
    }
  }
  workgroupBarrier(); // all shares with candidates are listed
  let width = max(BEST_QUADS, 1u); // a compiler divides by it even where it is 0
  let stride = max(BESTS, 1u) * width; // quads from one stripe of a share to the next
  let share_quads = (params.quads + stride - 1u) / stride * width;
  let work = min(atomicLoad(&hot_count), LANES) * share_quads;
  for (var w = thread; w < work; w += WORKGROUP_SIZE) {
    let share = atomicLoad(&bins[w / share_quads]);
    let i = w % share_quads;
    let q = i / width * stride + share * width + i % width;
    if (q < params.quads) {
      append_quad(q, logits_at(row, q), bound);
    }
  }
}
