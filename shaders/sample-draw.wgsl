// Part of sample: weights of tokens, and one drawn by the inverse of their cumulative distribution over ascending ids.
//
// Sums of lanes and teams say in which team's range the wanted mass lies; the same again over that range says in which
// quad. Every sum is taken in an order that does not depend on the number of threads.

// What the filters keep: scores above x, and those equal to x from `id` on.
struct Cut {
  x: f32,
  id: u32,
}

var<workgroup> found_index: u32;
var<workgroup> found_rest: f32;

fn kept_by(cut: Cut, q: u32, x: vec4f) -> vec4<bool> {
  let keep = x >= vec4f(cut.x);
  if (cut.id == 0u) {
    return keep;
  }
  return keep & ((x > vec4f(cut.x)) | ((4u * q + QUAD_IDS) >= vec4u(cut.id)));
}

// e^((x - max) / temperature): 1 for the best token.
fn weight(row: Row, x: f32) -> f32 {
  return exp2((x - row.max) * row.factor);
}

// Weights of four tokens; 0 for those that `cut` or min-p drops.
fn weights_at(row: Row, q: u32, x: vec4f, cut: Cut, min_p: f32) -> vec4f {
  let w = exp2((x - vec4f(row.max)) * row.factor);
  var keep = kept_by(cut, q, x);
  if (min_p > 0.0) {
    keep = keep & (w >= vec4f(min_p));
  }
  return select(vec4f(0.0), w, keep);
}

fn lane_sum(row: Row, lane: u32, cut: Cut, min_p: f32) -> f32 {
  let end = lane_end(lane);
  var sum = vec4f(0.0);
  var q = lane_first(lane);
  for (; q + 3u * TEAM < end; q += 4u * TEAM) { // four loads in flight
    let x0 = scores_at(row, q);
    let x1 = scores_at(row, q + TEAM);
    let x2 = scores_at(row, q + 2u * TEAM);
    let x3 = scores_at(row, q + 3u * TEAM);
    sum += weights_at(row, q, x0, cut, min_p);
    sum += weights_at(row, q + TEAM, x1, cut, min_p);
    sum += weights_at(row, q + 2u * TEAM, x2, cut, min_p);
    sum += weights_at(row, q + 3u * TEAM, x3, cut, min_p);
  }
  for (; q < end; q += TEAM) {
    sum += weights_at(row, q, scores_at(row, q), cut, min_p);
  }
  return (sum.x + sum.y) + (sum.z + sum.w);
}

// Sums of weights of every lane and team, in `lanes`.
fn row_sums(thread: u32, row: Row, cut: Cut, min_p: f32) {
  for (var lane = thread; lane < LANES; lane += WORKGROUP_SIZE) {
    lanes[lane] = bitcast<u32>(lane_sum(row, lane, cut, min_p));
  }
  workgroupBarrier(); // every lane's sum is there
  team_sums(thread);
}

fn team_sums(thread: u32) {
  for (var team = thread; team < TEAM; team += WORKGROUP_SIZE) {
    var sum = 0.0;
    for (var i = 0u; i < TEAM; i++) {
      sum += bitcast<f32>(lanes[team * TEAM + (i + team) % TEAM]);
    }
    lanes[LANES + team] = bitcast<u32>(sum);
  }
  workgroupBarrier(); // every team's sum is there
}

// The sum of all weights after row_sums, the same for all threads.
fn row_total(thread: u32) -> f32 {
  if (thread == 0u) {
    var total = 0.0;
    for (var team = 0u; team < TEAM; team++) {
      total += bitcast<f32>(lanes[LANES + team]);
    }
    agreed = bitcast<u32>(total);
  }
  return bitcast<f32>(workgroupUniformLoad(&agreed)); // a barrier: thread 0 has written it
}

// The next float below x > 0.
fn just_below(x: f32) -> f32 {
  return bitcast<f32>(bitcast<u32>(x) - 1u);
}

// Which of 32 values from lanes[first] on covers `goal` in their running sum, and how far into it; a goal at or past the
// end, which rounding may give, is in the last that is not zero. With `fraction`, the goal is in units of their total.
fn locate(thread: u32, first: u32, goal: f32, fraction: bool) {
  for (var i = thread; i < TEAM; i += WORKGROUP_SIZE) {
    var below = 0.0;
    var total = 0.0;
    for (var j = 0u; j < TEAM; j++) {
      let value = bitcast<f32>(lanes[first + j]);
      below += select(0.0, value, j < i);
      total += value;
    }
    // All sums run in one order, so one thread's `next` is another's `below`, and exactly one finds the goal.
    let wanted = min(select(goal, goal * total, fraction), just_below(total));
    let next = below + bitcast<f32>(lanes[first + i]);
    if (below <= wanted && wanted < next) {
      found_index = i;
      found_rest = wanted - below;
    }
  }
  workgroupBarrier(); // the one that found it has written where
}

// Draws a token into `chosen`; u in [0, 1).
fn draw(thread: u32, row: Row, cut: Cut, min_p: f32, u: f32) {
  row_sums(thread, row, cut, min_p);
  locate(thread, LANES, u, true);
  let team = found_index;
  let rest = found_rest;

  // The range of that team, this time neighbouring quads to each lane.
  let lane_quads = (team_quads() + LANES - 1u) / LANES;
  let first = team * team_quads();
  let end = min(first + team_quads(), params.quads);
  for (var lane = thread; lane < LANES; lane += WORKGROUP_SIZE) {
    let start = first + lane * lane_quads;
    var sum = 0.0;
    for (var q = start; q < min(start + lane_quads, end); q++) {
      let w = weights_at(row, q, scores_at(row, q), cut, min_p);
      sum += (w.x + w.y) + (w.z + w.w);
    }
    lanes[lane] = bitcast<u32>(sum);
  }
  workgroupBarrier(); // every lane's sum is there, and all have read what was found
  team_sums(thread);
  locate(thread, LANES, rest, false);
  let part = found_index;
  let part_rest = found_rest;
  workgroupBarrier(); // all have read what was found
  locate(thread, part * TEAM, part_rest, false);

  if (thread == 0u) {
    let start = first + (part * TEAM + found_index) * lane_quads;
    var below = 0.0;
    var token = NONE;
    for (var q = start; q < min(start + lane_quads, end); q++) {
      let w = weights_at(row, q, scores_at(row, q), cut, min_p);
      for (var i = 0u; i < 4u; i++) {
        if (w[i] > 0.0 && (token == NONE || below <= found_rest)) {
          token = 4u * q + i;
          below += w[i];
        }
      }
    }
    atomicStore(&chosen, token);
  }
}
