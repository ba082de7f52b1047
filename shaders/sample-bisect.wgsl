// Part of sample: the cut by bisection, where too many tokens are nearly equal for a list: first over scores, in the order
// of their bits, then over ids among equal scores. One pass over the row for each bit.

// The mass of what the search looks at and `cut` keeps; the same for all threads.
fn mass_kept(thread: u32, row: Row, search: Search, cut: Cut) -> f32 {
  for (var lane = thread; lane < LANES; lane += WORKGROUP_SIZE) {
    var sum = 0u;
    for (var q = lane_first(lane); q < lane_end(lane); q += TEAM) {
      let x = scores_at(row, q);
      let keep = kept_by(search.within, q, x) & kept_by(cut, q, x);
      for (var i = 0u; i < 4u; i++) {
        if (keep[i] && position(row, search, x[i]) >> search.shift == search.step) {
          sum += mass(row, search, x[i]);
        }
      }
    }
    lanes[lane] = sum;
  }
  workgroupBarrier(); // every lane's mass is there
  for (var team = thread; team < TEAM; team += WORKGROUP_SIZE) {
    var sum = 0u;
    for (var i = 0u; i < TEAM; i++) {
      sum += lanes[team * TEAM + (i + team) % TEAM];
    }
    lanes[LANES + team] = sum;
  }
  workgroupBarrier(); // every team's mass is there
  if (thread == 0u) {
    var total = 0u;
    for (var team = 0u; team < TEAM; team++) {
      total += lanes[LANES + team];
    }
    agreed = bitcast<u32>(f32(total));
  }
  return bitcast<f32>(workgroupUniformLoad(&agreed)); // a barrier: thread 0 has written it
}

fn bisect(thread: u32, row: Row, search: Search, goal: f32) -> Cut {
  // The mass of what is above `low`, or at it, is above what is wanted; that from `high` on is not.
  var low = Cut(row.lowest, 0u);
  var high = Cut(row.max, params.cols);
  var wanted = goal;
  let id_bits = 32u - countLeadingZeros(params.cols);
  for (var turn = 0u; turn <= 32u + id_bits; turn++) {
    // Turn 0 takes the mass of all, 32 turns halve the scores between low and high, the rest the ids at the score found.
    var middle = low;
    if (turn > 32u) {
      middle.id = low.id + (high.id - low.id) / 2u;
    } else if (turn > 0u) {
      let key = ordered(low.x);
      middle.x = from_ordered(key + (ordered(high.x) - key + 1u) / 2u);
    }
    let kept = mass_kept(thread, row, search, middle);
    if (turn == 0u) {
      wanted = min(goal, just_below(kept));
    } else if (kept > wanted) {
      low = middle;
    } else if (turn > 32u) {
      high.id = middle.id;
    } else {
      high.x = from_ordered(ordered(middle.x) - 1u);
    }
  }
  // Top-k keeps all that equal the k-th.
  return Cut(low.x, select(low.id, 0u, search.mass_scale == 0.0));
}
