// Part of sample: the whole way for a small top-k, in a list of candidates.
//
// The k-th highest of some lanes' maxima is at most the k-th highest score, so that what lies below it need not be looked
// at. What is left, some k · 1.3 tokens, is sorted; the filters keep the first so many of them.

const FEW = 128u; // the largest top-k that comes here

// A bound with at least k scores at or above it, if there are so many. Needs the lanes' maxima in `lanes`, or the shares'.
fn bound_of(thread: u32, row: Row, k: u32) -> f32 {
  let groups = select(256u, 128u, k <= 64u);
  let size = LANES / groups; // lanes of a group; so many lanes also share the work of a group
  for (var g = thread; g < groups; g += WORKGROUP_SIZE) {
    var best = bitcast<f32>(minus_infinity_bits);
    for (var i = 0u; i < size; i++) {
      best = max(best, bitcast<f32>(lanes[g * size + (i + g) % size]));
    }
    // The group in the last bits, rounding down, so that no two are equal.
    candidate_scores[g] = (ordered(best) & 0xffffff00u) | g;
    atomicStore(&bins[g], 0u);
  }
  if (thread == 0u) {
    atomicStore(&candidate_count, 0u);
    atomicStore(&hot_count, 0u);
  }
  workgroupBarrier(); // every group's maximum is there, every count 0
  for (var lane = thread; lane < LANES; lane += WORKGROUP_SIZE) {
    let own = candidate_scores[lane / size];
    var higher = 0u;
    for (var i = lane % size; i < groups; i += size) {
      higher += select(0u, 1u, candidate_scores[i] > own);
    }
    atomicAdd(&bins[lane / size], higher);
  }
  workgroupBarrier(); // every group knows how many are higher
  for (var g = thread; g < groups; g += WORKGROUP_SIZE) {
    if (atomicLoad(&bins[g]) == k - 1u) {
      found_index = candidate_scores[g] & 0xffffff00u;
    }
  }
  workgroupBarrier(); // the k-th group has written its maximum
  return from_ordered(max(found_index, ordered(row.lowest)));
}

// Lists every token with a score of at least `bound`: first the lanes that have one, then their quads shared out anew,
// because a lane's quads one after another would have a thread wait for each.
fn list_from(thread: u32, row: Row, bound: f32) {
  for (var lane = thread; lane < LANES; lane += WORKGROUP_SIZE) {
    if (bitcast<f32>(lanes[lane]) >= bound) {
      atomicStore(&bins[atomicAdd(&hot_count, 1u)], lane);
    }
  }
  workgroupBarrier(); // all lanes with candidates are listed
  let lane_quads = (team_quads() + TEAM - 1u) / TEAM;
  let work = atomicLoad(&hot_count) * lane_quads;
  for (var w = thread; w < work; w += WORKGROUP_SIZE) {
    let lane = atomicLoad(&bins[w / lane_quads]);
    let q = lane_first(lane) + (w % lane_quads) * TEAM;
    if (q < lane_end(lane)) {
      append_quad(q, scores_at(row, q), bound);
    }
  }
}

// Draws a token into `chosen` and returns true; false, the same for all threads, if too many scores are about equal. With
// `by_bests` the row itself is not looked at but where its best tokens are.
fn draw_of_few(thread: u32, row: Row, by_bests: bool, k: u32, top_p: f32, lowest: f32, u: f32) -> bool {
  let bound = bound_of(thread, row, k);
  if (by_bests) {
    list_from_bests(thread, row, bound);
  } else {
    list_from(thread, row, bound);
  }
  let count = appended(thread);
  if (count > CAPACITY) {
    return false;
  }

  // 1. Sort, the higher score first and of equal ones the higher id: the order, backwards, in which top-p drops them.
  // Threads appended in any order; from here on nothing depends on it.
  for (var i = thread; i < count; i += WORKGROUP_SIZE) {
    let x = bitcast<f32>(candidate_scores[i]);
    let id = candidate_ids[i];
    var rank = 0u;
    for (var j = 0u; j < count; j++) {
      let other = bitcast<f32>(candidate_scores[j]);
      rank += select(0u, 1u, other > x || (other == x && candidate_ids[j] > id));
    }
    lanes[rank] = candidate_scores[i];
    lanes[CAPACITY + rank] = id;
  }
  workgroupBarrier(); // the list is sorted

  // 2. Weights; top-k keeps what is not below the k-th.
  let kth = bitcast<f32>(lanes[min(k, count) - 1u]);
  for (var r = thread; r < count; r += WORKGROUP_SIZE) {
    let x = bitcast<f32>(lanes[r]);
    candidate_scores[r] = bitcast<u32>(select(0.0, weight(row, x), x >= kth));
  }
  workgroupBarrier(); // every weight is there

  // 3. Top-p keeps a token if those before it have not reached the wanted share, min-p if its score is not below `lowest`.
  for (var r = thread; r < count; r += WORKGROUP_SIZE) {
    let own = bitcast<f32>(candidate_scores[r]);
    var before = 0.0;
    var total = 0.0;
    for (var j = 0u; j < count; j++) {
      let w = bitcast<f32>(candidate_scores[j]);
      before += select(0.0, w, j < r);
      total += w;
    }
    let keep = (top_p >= 1.0 || before < top_p * total) && bitcast<f32>(lanes[r]) >= lowest;
    candidate_ids[r] = bitcast<u32>(select(0.0, own, keep));
  }
  workgroupBarrier(); // every weight after the filters is there, in candidate_ids

  // 4. The lowest id whose running sum over ascending ids passes u; the last one if rounding lets none pass.
  for (var r = thread; r < count; r += WORKGROUP_SIZE) {
    let own = bitcast<f32>(candidate_ids[r]);
    let id = lanes[CAPACITY + r];
    var below = 0.0;
    var total = 0.0;
    var is_last = true;
    for (var j = 0u; j < count; j++) {
      let w = bitcast<f32>(candidate_ids[j]);
      let other = lanes[CAPACITY + j];
      below += select(0.0, w, other < id);
      total += w;
      is_last = is_last && !(w > 0.0 && other > id);
    }
    if (own > 0.0 && (is_last || below + own > u * total)) {
      atomicMin(&chosen, id);
    }
  }
  return true;
}
