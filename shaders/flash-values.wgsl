// Part: the weighted values of a chunk, for a thread of flash attention: see flash-rows.wgsl.

// Add the staged tile's values, weighted, to `sums`. `end` is what the last row of the workgroup sees, `all_see` what the first
// one does.
fn add_tile(sums: ptr<function, Values>, first: u32, at: u32, seen: vec4u, all_see: u32, end: u32, thread: u32) {
  for (var begin = at; begin < min(at + KEY_TILE, end - first); begin += GROUP) {
    let place = weight_place(quarter_of(thread), begin);
    if (first + begin + GROUP <= all_see) {
      add_whole_group(sums, place, begin - at, thread);
    } else {
      add_group(sums, place, begin - at, first + begin, seen, thread);
    }
  }
}

// Where a thread's quad of a column is in a staged row; past the head's end the last one stands in, for nobody.
fn quad_of(column: u32, thread: u32) -> u32 {
  return min(column * LANES + lane_of(thread), HEAD_QUADS - 1u);
}

// A group that all rows see: one chain for each row and quad. Its weights begin at `place`, its values at row `staged`.
fn add_whole_group(sums: ptr<function, Values>, place: u32, staged: u32, thread: u32) {
  var chains: Values;
  for (var column = 0u; column < COLUMNS; column++) {
    chains[column] = same_rows(vec4f(zero));
  }
  for (var i = 0u; i < GROUP; i++) {
    let weight = weights[place + i];
    for (var column = 0u; column < COLUMNS; column++) {
      let value = stage[(staged + i) * STRIDE + quad_of(column, thread)];
      chains[column] = add_weighted(chains[column], weight, value);
    }
  }
  for (var column = 0u; column < COLUMNS; column++) {
    (*sums)[column] = add_rows((*sums)[column], chains[column]);
  }
}

// A group at `position` of which each row sees what is below seen: its chain ends there. Where a row sees none of it, it adds nothing.
fn add_group(sums: ptr<function, Values>, place: u32, staged: u32, position: u32, seen: vec4u, thread: u32) {
  var chains: Values;
  for (var column = 0u; column < COLUMNS; column++) {
    chains[column] = select_rows(same_rows(vec4f(nothing)), same_rows(vec4f(zero)), vec4u(position) < seen);
  }
  for (var i = 0u; i < GROUP; i++) {
    let weight = weights[place + i];
    let sees = vec4u(position + i) < seen;
    for (var column = 0u; column < COLUMNS; column++) {
      let value = stage[(staged + i) * STRIDE + quad_of(column, thread)];
      chains[column] = select_rows(chains[column], add_weighted(chains[column], weight, value), sees);
    }
  }
  for (var column = 0u; column < COLUMNS; column++) {
    (*sums)[column] = add_rows((*sums)[column], chains[column]);
  }
}
