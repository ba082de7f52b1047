// Part: what a thread of flash attention computes of a staged tile: scores, weights, weighted values.
//
// 8 threads share 4 rows. A score is computed by one of them, for 4 rows and every 8th position; then each has every 8th quad
// of the 4 rows' values. So 4 rows and up to 4 positions or quads lie in registers, and a vec4 that is read from workgroup memory is
// used 4 times. Weights lie as vec4s of 4 rows.
//
// The order of summation is attend-chunk.wgsl's: a score is one fma chain over the quads of the head, then (x + y) + (z + w);
// a group of 16 positions is one chain; the groups are added in order. What a row does not see is left out by select, not
// by a weight of 0: it may be NaN.

const GROUP = 16u;
const GROUPS = CHUNK / GROUP; // also the threads of 4 rows
const LANES = 8u;
const MAX_KEYS = 4u;    // KEYS for the largest tile
const MAX_COLUMNS = 4u; // COLUMNS for the largest head

override KEYS: u32 = KEY_TILE / LANES;                            // positions of a tile that a thread scores
override COLUMNS: u32 = (HEAD_QUADS + LANES - 1u) / LANES;        // quads of the values that are a thread's
override QUERY_QUADS: u32 = TILE_ROWS * STRIDE;

// Weights of 4 rows: of each group its 16 and, behind them, their sum. The one more keeps rows in different banks.
const GROUP_STRIDE = GROUP + 1u;
const WEIGHT_STRIDE = GROUPS * GROUP_STRIDE + 1u;
override WEIGHT_QUADS: u32 = TILE_ROWS / 4u * WEIGHT_STRIDE;

const LOWEST = -3.4028234e38;

var<workgroup> query: array<vec4f, QUERY_QUADS>;    // scaled, zero past the head's end
var<workgroup> weights: array<vec4f, WEIGHT_QUADS>; // scores at first
var<workgroup> largest_keys: array<atomic<u32>, TILE_ROWS>; // of the scores of a chunk: a maximum of integers needs no tree

var<private> chunk_values: array<vec4f, 4u * MAX_COLUMNS>; // of 4 rows by column

// Where the weights of 4 rows for position i of a chunk are.
fn weight_place(quarter: u32, i: u32) -> u32 {
  return quarter * WEIGHT_STRIDE + i / GROUP * GROUP_STRIDE + i % GROUP;
}

// Score the staged tile, which begins at `at` in the chunk at `first`. Row r sees the positions below seen[r]. Returns the
// largest score of each row as integers.
fn score_tile(first: u32, at: u32, seen: vec4u, thread: u32) -> vec4u {
  let lane = thread % LANES;
  let quarter = thread / LANES;

  var products: array<vec4f, 4u * MAX_KEYS>; // of 4 rows by key
  for (var quad = 0u; quad < HEAD_QUADS; quad++) {
    var rows: array<vec4f, 4>;
    for (var r = 0u; r < 4u; r++) {
      rows[r] = query[(quarter * 4u + r) * STRIDE + quad];
    }
    for (var j = 0u; j < KEYS; j++) {
      let key = stage[(j * LANES + lane) * STRIDE + quad];
      for (var r = 0u; r < 4u; r++) {
        products[j * 4u + r] = fma(rows[r], key, products[j * 4u + r]);
      }
    }
  }

  var largest = vec4u();
  for (var j = 0u; j < KEYS; j++) {
    let i = at + j * LANES + lane;
    var scores: vec4f;
    for (var r = 0u; r < 4u; r++) {
      let p = products[j * 4u + r];
      scores[r] = select(LOWEST, (p.x + p.y) + (p.z + p.w), first + i < seen[r]);
      largest[r] = max(largest[r], ordered(scores[r]));
    }
    weights[weight_place(quarter, i)] = scores;
  }
  return largest;
}

// Turn the scores of a group into weights relative to the largest, and add them up: a thread has the group of its lane.
fn weigh_group(first: u32, seen: vec4u, largest: vec4f, thread: u32) {
  let begin = thread % LANES * GROUP;
  let place = weight_place(thread / LANES, begin);
  var sum = vec4f();
  for (var i = 0u; i < GROUP; i++) {
    let weight = exp(weights[place + i] - largest);
    weights[place + i] = weight;
    sum = select(sum, sum + weight, vec4u(first + begin + i) < seen);
  }
  weights[place + GROUP] = sum;
}

// The sums of a chunk's weights, groups added in order. That of a group that a row does not see is 0.
fn chunk_sums(thread: u32) -> vec4f {
  let place = thread / LANES * WEIGHT_STRIDE + GROUP;
  var sums = weights[place];
  for (var group = 1u; group < GROUPS; group++) {
    sums += weights[place + group * GROUP_STRIDE];
  }
  return sums;
}

// Add the staged tile's values, weighted, to those of the chunk. `end` is what the last row of the workgroup sees, `all_see`
// what the first one does.
fn add_tile(first: u32, at: u32, seen: vec4u, all_see: u32, end: u32, thread: u32) {
  for (var begin = at; begin < min(at + KEY_TILE, end - first); begin += GROUP) {
    add_group(first, begin, begin - at, seen, first + begin + GROUP <= all_see, thread);
  }
}

fn add_group(first: u32, begin: u32, staged: u32, seen: vec4u, is_whole: bool, thread: u32) {
  let lane = thread % LANES;
  let place = weight_place(thread / LANES, begin);
  var values: array<vec4f, 4u * MAX_COLUMNS>;

  // 1. One chain for each row and quad. Where a row's context ends within the group, its chain does.
  if (is_whole) {
    for (var i = 0u; i < GROUP; i++) {
      let weight = weights[place + i];
      for (var column = 0u; column < COLUMNS; column++) {
        let value = stage[(staged + i) * STRIDE + min(column * LANES + lane, HEAD_QUADS - 1u)];
        for (var r = 0u; r < 4u; r++) {
          values[column * 4u + r] = fma(vec4f(weight[r]), value, values[column * 4u + r]);
        }
      }
    }
  } else {
    for (var i = 0u; i < GROUP; i++) {
      let weight = weights[place + i];
      for (var column = 0u; column < COLUMNS; column++) {
        let value = stage[(staged + i) * STRIDE + min(column * LANES + lane, HEAD_QUADS - 1u)];
        for (var r = 0u; r < 4u; r++) {
          let sum = values[column * 4u + r];
          values[column * 4u + r] = select(sum, fma(vec4f(weight[r]), value, sum), first + begin + i < seen[r]);
        }
      }
    }
  }

  // 2. The group joins the chunk, in those rows that see any of it.
  for (var column = 0u; column < COLUMNS; column++) {
    for (var r = 0u; r < 4u; r++) {
      let at = column * 4u + r;
      let sum = select(chunk_values[at] + values[at], values[at], begin == 0u);
      chunk_values[at] = select(chunk_values[at], sum, first + begin < seen[r]);
    }
  }
}
