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

// The lowest score that min-p keeps, where the best token's is 1: a score, because a weight may be rounded to 1.
fn lowest_of_min_p(row: Row, min_p: f32) -> f32 {
  if (min_p >= 1.0) {
    return row.max;
  }
  return select(row.lowest, max(row.lowest, row.max + log2(min_p) / row.factor), min_p > 0.0);
}

// e^((x - max) / temperature): 1 for the best token.
fn weight(row: Row, x: f32) -> f32 {
  return exp2((x - row.max) * row.factor);
}

// Weights of four tokens; 0 for those that `cut` drops.
fn weights_at(row: Row, q: u32, x: vec4f, cut: Cut) -> vec4f {
  let w = exp2((x - vec4f(row.max)) * row.factor);
  return select(vec4f(0.0), w, kept_by(cut, q, x));
}

fn lane_sum(row: Row, lane: u32, cut: Cut) -> f32 {
  let end = lane_end(lane);
  var sum = vec4f(0.0);
  for (var q = lane_first(lane); q < end; q += IN_FLIGHT * TEAM) {
    var x: array<vec4f, IN_FLIGHT>;
    for (var i = 0u; i < IN_FLIGHT; i++) {
      x[i] = logits_at(row, min(q + i * TEAM, end - 1u));
    }
    for (var i = 0u; i < IN_FLIGHT; i++) {
      let at = q + i * TEAM;
      if (at < end) {
        sum += weights_at(row, at, penalised(row, at, x[i]), cut);
      }
    }
  }
  return (sum.x + sum.y) + (sum.z + sum.w);
}

// Sums of weights of every lane and team, in `lanes`.
fn row_sums(thread: u32, row: Row, cut: Cut) {
  for (var lane = thread; lane < LANES; lane += WORKGROUP_SIZE) {
    lanes[lane] = bitcast<u32>(lane_sum(row, lane, cut));
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

// Finds what covers `goal` in the running sum: of the 32 teams (levels 1), or of the 1,024 lanes (levels 2), going into the
// team that was found. Gives its number in found_index, and how far into it in found_rest. A goal at or past the end,
// which rounding may give, is in the last that is not zero. With `fraction`, the goal is in units of the total.
fn locate(thread: u32, goal: f32, fraction: bool, levels: u32) {
  var wanted = goal;
  var index = 0u;
  for (var level = 0u; level < levels; level++) {
    let first = select(index * TEAM, LANES, level == 0u);
    for (var i = thread; i < TEAM; i += WORKGROUP_SIZE) {
      var below = 0.0;
      var total = 0.0;
      for (var j = 0u; j < TEAM; j++) {
        let value = bitcast<f32>(lanes[first + j]);
        below += select(0.0, value, j < i);
        total += value;
      }
      // All sums run in one order, so one thread's `next` is another's `below`, and exactly one finds the goal.
      let inside = min(select(wanted, wanted * total, fraction && level == 0u), just_below(total));
      let next = below + bitcast<f32>(lanes[first + i]);
      if (below <= inside && inside < next) {
        found_index = index * TEAM + i;
        found_rest = inside - below;
      }
    }
    workgroupBarrier(); // the one that found it has written where
    index = found_index;
    wanted = found_rest;
    workgroupBarrier(); // all have read where
  }
}

// Draws a token into `chosen`; u in [0, 1). Needs row_sums of what may be drawn.
fn draw(thread: u32, row: Row, cut: Cut, u: f32) {
  locate(thread, u, true, 1u);
  // The range of that team, this time neighbouring quads to each lane.
  let lane_quads = (team_quads() + LANES - 1u) / LANES;
  let first = found_index * team_quads();
  let rest = found_rest;
  let end = min(first + team_quads(), params.quads);
  for (var lane = thread; lane < LANES; lane += WORKGROUP_SIZE) {
    let start = first + lane * lane_quads;
    var sum = 0.0;
    for (var q = start; q < min(start + lane_quads, end); q++) {
      let w = weights_at(row, q, scores_at(row, q), cut);
      sum += (w.x + w.y) + (w.z + w.w);
    }
    lanes[lane] = bitcast<u32>(sum);
  }
  workgroupBarrier(); // every lane's sum is there, and all have read what was found
  team_sums(thread);
  locate(thread, rest, false, 2u);
  if (thread == 0u) {
    let start = first + found_index * lane_quads;
    var below = 0.0;
    var token = NONE;
    for (var q = start; q < min(start + lane_quads, end); q++) {
      let w = weights_at(row, q, scores_at(row, q), cut);
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
