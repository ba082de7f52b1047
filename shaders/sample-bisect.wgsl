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

// `counting` is search.mass_scale == 0, as a value that a compiler can see is the same for all threads.
fn bisect(thread: u32, row: Row, search: Search, goal: f32, counting: bool) -> Cut {
  let total = mass_kept(thread, row, search, search.within);
  let wanted = min(goal, just_below(total));

  // The mass from `low` up is above what is wanted, that from `high` up is not.
  var low = ordered(row.lowest);
  var high = ordered(row.max) + 1u;
  for (var bit = 0u; bit < 32u; bit++) {
    let middle = low + (high - low) / 2u;
    let enough = mass_kept(thread, row, search, Cut(from_ordered(middle), 0u)) > wanted;
    low = select(low, middle, enough);
    high = select(middle, high, enough);
  }
  let x = from_ordered(low);
  if (counting) { // top-k keeps all that equal the k-th
    return Cut(x, 0u);
  }
  var low_id = 0u;
  var high_id = params.cols;
  for (var bit = countLeadingZeros(params.cols); bit < 32u; bit++) {
    let middle = low_id + (high_id - low_id) / 2u;
    let enough = mass_kept(thread, row, search, Cut(x, middle)) > wanted;
    low_id = select(low_id, middle, enough);
    high_id = select(middle, high_id, enough);
  }
  return Cut(x, low_id);
}
