// Part of sample: where top-k or top-p cuts, for any k and any number of tokens.
//
// Going down from the best, the cut is the token whose mass reaches the limit: a token's mass is 1 for top-k, and its
// weight in 2^-31ths of the total for top-p. Integers, so that atomics may add them in any order.
//   1. A histogram of mass over 1,024 equal steps of (max - score), and the step that reaches the limit.
//   2. The tokens of that step as a list, if they fit; else the same within the step, once more.
//   3. In the list, the token that reaches the limit, by comparing each with each.
// Where more tokens are (nearly) equal than the list holds, bisection finds the same token in some 50 passes.

const CAPACITY = 512u;      // entries of the list of candidates
const STEP_BITS = 10u;      // of 1,024 bins
const ROUNDS = 2u;
const POSITIONS = 1048576.0; // steps of the last round: 2^(STEP_BITS · ROUNDS)

var<workgroup> bins: array<atomic<u32>, LANES>;
var<workgroup> candidate_count: atomic<u32>; // may pass CAPACITY: the rest is not in the list
var<workgroup> candidate_scores: array<u32, CAPACITY>; // f32 bits
var<workgroup> candidate_ids: array<u32, CAPACITY>;

// What a search for a cut looks at.
struct Search {
  within: Cut,     // nothing else counts
  mass_scale: f32, // mass of weight 1; 0: every token has mass 1
  scale: f32,      // from (max - score) to positions
  shift: u32,      // bits of a position that are still open
  step: u32,       // the bits before them
}

fn append(x: f32, id: u32) {
  // A full list is left alone: thousands of additions to one word would wait for each other.
  if (atomicLoad(&candidate_count) <= CAPACITY) {
    let place = atomicAdd(&candidate_count, 1u);
    if (place < CAPACITY) {
      candidate_scores[place] = bitcast<u32>(x);
      candidate_ids[place] = id;
    }
  }
}

fn append_quad(q: u32, x: vec4f, bound: f32) {
  for (var i = 0u; i < 4u; i++) {
    if (x[i] >= bound) {
      append(x[i], 4u * q + i);
    }
  }
}

// How many were appended, the same for all threads; above CAPACITY: too many.
fn appended(thread: u32) -> u32 {
  workgroupBarrier(); // all have appended theirs
  if (thread == 0u) {
    agreed = atomicLoad(&candidate_count);
  }
  return workgroupUniformLoad(&agreed); // a barrier: thread 0 has written it
}

fn mass(row: Row, search: Search, x: f32) -> u32 {
  return select(u32(weight(row, x) * search.mass_scale + 0.5), 1u, search.mass_scale == 0.0);
}

// The position of a score that `within` keeps: never less for a lower score.
fn position(row: Row, search: Search, x: f32) -> u32 {
  return u32((row.max - x) * search.scale);
}

fn add_to_bins(row: Row, search: Search, lane: u32) {
  for (var q = lane_first(lane); q < lane_end(lane); q += TEAM) {
    let x = scores_at(row, q);
    let keep = kept_by(search.within, q, x);
    for (var i = 0u; i < 4u; i++) {
      if (keep[i]) {
        let place = position(row, search, x[i]) >> search.shift;
        if (place >> STEP_BITS == search.step) {
          atomicAdd(&bins[place % LANES], mass(row, search, x[i]));
        }
      }
    }
  }
}

fn collect_step(row: Row, search: Search, lane: u32) {
  for (var q = lane_first(lane); q < lane_end(lane); q += TEAM) {
    let x = scores_at(row, q);
    let keep = kept_by(search.within, q, x);
    for (var i = 0u; i < 4u; i++) {
      if (keep[i] && position(row, search, x[i]) >> search.shift == search.step) {
        append(x[i], 4u * q + i);
      }
    }
  }
}

// The first token, going down, with which the mass of those up to it reaches `limit`; the last one if none does. Equal
// scores go from the highest id down, and top-k keeps all of them. Nothing `range` times the temperature below the
// maximum is looked at: it is dropped, or weighs nothing.
fn find_cut(thread: u32, row: Row, within: Cut, limit: f32, mass_scale: f32, range: f32) -> Cut {
  var search = Search(within, mass_scale, row.factor / LOG2_E * (POSITIONS / range), STEP_BITS * ROUNDS, 0u);
  var goal = just_below(limit);
  var count = 0u;
  for (var round = 0u; round < ROUNDS; round++) {
    search.shift -= STEP_BITS;
    for (var i = thread; i < LANES; i += WORKGROUP_SIZE) {
      atomicStore(&bins[i], 0u);
    }
    if (thread == 0u) {
      atomicStore(&candidate_count, 0u);
    }
    workgroupBarrier(); // the bins are empty
    for (var lane = thread; lane < LANES; lane += WORKGROUP_SIZE) {
      add_to_bins(row, search, lane);
    }
    workgroupBarrier(); // all is in the bins
    for (var i = thread; i < LANES; i += WORKGROUP_SIZE) {
      lanes[i] = bitcast<u32>(f32(atomicLoad(&bins[i])));
    }
    workgroupBarrier(); // the bins' masses are there, as f32
    team_sums(thread);
    locate(thread, goal, false, 2u);
    search.step = (search.step << STEP_BITS) | found_index;
    goal = found_rest;
    for (var lane = thread; lane < LANES; lane += WORKGROUP_SIZE) {
      collect_step(row, search, lane);
    }
    count = appended(thread);
    if (count <= CAPACITY) {
      break;
    }
  }
  if (count > CAPACITY) {
    return bisect(thread, row, search, goal);
  }
  return cut_in_list(thread, row, search, goal, count);
}

fn cut_in_list(thread: u32, row: Row, search: Search, goal: f32, count: u32) -> Cut {
  for (var i = thread; i < count; i += WORKGROUP_SIZE) {
    lanes[i] = mass(row, search, bitcast<f32>(candidate_scores[i]));
  }
  workgroupBarrier(); // every candidate's mass is there
  for (var i = thread; i < count; i += WORKGROUP_SIZE) {
    let x = bitcast<f32>(candidate_scores[i]);
    let id = candidate_ids[i];
    var above = 0u;
    var total = 0u;
    for (var j = 0u; j < count; j++) {
      let other = bitcast<f32>(candidate_scores[j]);
      let is_above = other > x || (other == x && candidate_ids[j] > id);
      above += select(0u, lanes[j], is_above);
      total += lanes[j];
    }
    let wanted = min(goal, just_below(f32(total)));
    if (f32(above) <= wanted && wanted < f32(above + lanes[i])) {
      found_rest = x;
      found_index = id;
    }
  }
  workgroupBarrier(); // the one at the limit has written itself
  return Cut(found_rest, select(found_index, 0u, search.mass_scale == 0.0));
}

// Draws a token into `chosen`, whatever the filters. Top-k, then top-p, then the draw: one loop, so that a compiler that
// inlines everything meets each once.
fn draw_of_all(thread: u32, row: Row, top_k: u32, top_p: f32, lowest: f32, u: f32) {
  var cut = Cut(row.lowest, 0u);
  for (var stage = 0u; stage < 3u; stage++) {
    let is_on = (stage == 0u && top_k > 0u && top_k < params.cols) || (stage == 1u && top_p < 1.0) || stage == 2u;
    if (!is_on) {
      continue;
    }
    var limit = f32(top_k);
    var mass_scale = 0.0;
    var range = SPAN;
    if (stage == 2u && lowest > cut.x) {
      cut = Cut(lowest, 0u);
    }
    if (stage > 0u) {
      row_sums(thread, row, cut);
    }
    if (stage == 1u) {
      let total = row_total(thread);
      mass_scale = floor(TOTAL_MASS / total); // whole, so that the best token's mass is exact, and with it that of ties
      limit = top_p * total * mass_scale;
      // Below the floor of src/generate/logit-filters.ts are at most half of those that may go.
      range = min(SPAN, log2(2.0 * f32(params.cols) / ((1.0 - top_p) * total)) * LN_2);
    }
    if (stage < 2u) {
      cut = find_cut(thread, row, cut, limit, mass_scale, range);
    }
  }
  draw(thread, row, cut, u);
}
