// Part of sample: a row of scores, how it is shared out, and its maximum and who has it.
//
// 32 teams of 32 lanes share the row, whatever the number of threads, so that no sum depends on it: a team has a range
// of quads (four neighbouring ids), its lanes stride over it. A thread plays every WORKGROUP_SIZE-th lane.

override WORKGROUP_SIZE: u32 = 256u; // threads; what WebGPU guarantees at most, 1024 on a GPU that allows it

const TEAM = 32u;  // lanes of a team, and teams
const LANES = 1024u;
const IN_FLIGHT = 4u; // loads that a thread starts before it needs the first
const QUAD_IDS = vec4u(0u, 1u, 2u, 3u);

// As variables: WGSL has no literal for infinity and refuses a constant expression that is one.
var<private> minus_infinity_bits = 0xff800000u;
var<private> infinity_bits = 0x7f800000u;

struct Row {
  first: u32,   // quad of `logits` where it begins
  seen: u32,    // word of `seen` where it begins
  penalty: f32,
  max: f32,     // the highest score
  factor: f32,  // log2(e) / temperature
  lowest: f32,  // finite; lower scores weigh less than f32 can hold
}

// A value for each lane, then the sum of each team: f32 or u32 bits.
var<workgroup> lanes: array<u32, LANES + TEAM>;
var<workgroup> agreed: u32; // what thread 0 found for all, as bits

fn team_quads() -> u32 {
  return (params.quads + TEAM - 1u) / TEAM;
}

fn lane_first(lane: u32) -> u32 {
  return (lane / TEAM) * team_quads() + lane % TEAM;
}

fn lane_end(lane: u32) -> u32 {
  return min((lane / TEAM + 1u) * team_quads(), params.quads);
}

// Four logits. -Infinity stands behind the row's end, where its padding is zero.
fn logits_at(row: Row, q: u32) -> vec4f {
  let x = logits[row.first + q];
  if (4u * q + 4u <= params.cols) {
    return x;
  }
  let inside = (4u * q + QUAD_IDS) < vec4u(params.cols);
  return select(vec4f(bitcast<f32>(minus_infinity_bits)), x, inside);
}

// Logits after the repetition penalty (Keskar et al. 2019, "CTRL", section 4.1).
fn penalised(row: Row, q: u32, x: vec4f) -> vec4f {
  if (row.penalty == 1.0) {
    return x;
  }
  let bits = seen[row.seen + q / 8u] >> (4u * (q % 8u));
  if ((bits & 15u) == 0u) { // most quads
    return x;
  }
  let y = select(x / row.penalty, x * row.penalty, x < vec4f(0.0));
  // What overflows stays finite: only -Infinity rules a token out.
  let finite = select(x, clamp(y, vec4f(-LARGEST), vec4f(LARGEST)), x >= vec4f(-LARGEST));
  return select(x, finite, ((vec4u(bits) >> QUAD_IDS) & vec4u(1u)) == vec4u(1u));
}

fn scores_at(row: Row, q: u32) -> vec4f {
  return penalised(row, q, logits_at(row, q));
}

struct Extremes {
  best: vec4f,
  high_signed: vec4i,   // the highest bits, as i32: Infinity and NaN are above those of every other float that is not negative
  high_unsigned: vec4u, // the highest bits, as u32: a negative NaN is above -Infinity, the highest of the others
}

// By their bits: a compiler may take it that no float is NaN.
fn include(e: Extremes, row: Row, q: u32, x: vec4f) -> Extremes {
  return Extremes(
    max(e.best, penalised(row, q, x)),
    max(e.high_signed, bitcast<vec4i>(x)),
    max(e.high_unsigned, bitcast<vec4u>(x)),
  );
}

// The highest score of a lane, Infinity if one of its logits is NaN or Infinity, -Infinity if it has none.
fn lane_max(row: Row, lane: u32) -> f32 {
  let end = lane_end(lane);
  let none = bitcast<f32>(minus_infinity_bits);
  var e = Extremes(vec4f(none), vec4i(bitcast<i32>(minus_infinity_bits)), vec4u(0u));
  for (var q = lane_first(lane); q < end; q += IN_FLIGHT * TEAM) {
    var x: array<vec4f, IN_FLIGHT>;
    for (var i = 0u; i < IN_FLIGHT; i++) { // past the end the last quad once more: loads need not wait for a branch
      x[i] = logits_at(row, min(q + i * TEAM, end - 1u));
    }
    for (var i = 0u; i < IN_FLIGHT; i++) {
      if (q + i * TEAM < end) {
        e = include(e, row, q + i * TEAM, x[i]);
      }
    }
  }
  let bad = any(e.high_signed >= vec4i(0x7f800000)) || any(e.high_unsigned > vec4u(0xff800000u));
  let best = max(max(e.best.x, e.best.y), max(e.best.z, e.best.w));
  return select(best, bitcast<f32>(infinity_bits), bad);
}

// Bits of the highest score, the same for all threads; leaves the maximum of each lane in `lanes`. The row's is the
// highest of them, so that one bad lane makes it Infinity.
fn row_max_bits(thread: u32, row: Row) -> u32 {
  for (var lane = thread; lane < LANES; lane += WORKGROUP_SIZE) {
    lanes[lane] = bitcast<u32>(lane_max(row, lane));
  }
  workgroupBarrier(); // every lane's maximum is there
  for (var team = thread; team < TEAM; team += WORKGROUP_SIZE) {
    var best = bitcast<f32>(minus_infinity_bits);
    for (var i = 0u; i < TEAM; i++) {
      // From another bank of workgroup memory for each team.
      best = max(best, bitcast<f32>(lanes[team * TEAM + (i + team) % TEAM]));
    }
    lanes[LANES + team] = bitcast<u32>(best);
  }
  workgroupBarrier(); // every team's maximum is there
  if (thread == 0u) {
    var best = bitcast<f32>(minus_infinity_bits);
    for (var team = 0u; team < TEAM; team++) {
      best = max(best, bitcast<f32>(lanes[LANES + team]));
    }
    agreed = bitcast<u32>(best);
  }
  return workgroupUniformLoad(&agreed); // a barrier: thread 0 has written it
}

// The lowest id with the highest score, into `chosen`.
fn pick_best(thread: u32, row: Row) {
  for (var lane = thread; lane < LANES; lane += WORKGROUP_SIZE) {
    if (bitcast<f32>(lanes[lane]) == row.max) {
      var best = vec4u(NONE);
      for (var q = lane_first(lane); q < lane_end(lane); q += TEAM) {
        best = min(best, select(vec4u(NONE), 4u * q + QUAD_IDS, scores_at(row, q) == vec4f(row.max)));
      }
      atomicMin(&chosen, min(min(best.x, best.y), min(best.z, best.w)));
    }
  }
}
