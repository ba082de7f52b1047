// Part: what a thread of flash attention computes of a staged tile: scores, weights, weighted values.
//
// LANES threads share 4 rows. A score is computed by one of them, for 4 rows and every LANES-th position; then each has every
// LANES-th quad of the 4 rows' values. So 4 rows and up to 4 positions or quads lie in registers, and a vec4 that is read from
// workgroup memory is used 4 times. Weights lie as vec4s of 4 rows. Neighbouring threads, 2i and 2i + 1, have the same lane
// of different rows: a GPU that reads vec4s by 8 threads at a time reads for 16 where neighbours, or those two apart, agree.
//
// The order of summation is attend-chunk.wgsl's: a score is one fma chain over the quads of the head, then (x + y) + (z + w);
// a group of 16 positions is one chain; the groups are added in order. What a row does not see is left out by select, not
// by a weight of 0: it may be NaN.

const GROUP = 16u;
const GROUPS = CHUNK / GROUP;
const MAX_KEYS = 4u;    // KEYS for the largest tile
const MAX_COLUMNS = 4u; // COLUMNS for the largest head

override KEYS: u32 = KEY_TILE / LANES;                            // positions of a tile that a thread scores
override COLUMNS: u32 = (HEAD_QUADS + LANES - 1u) / LANES;        // quads of the values that are a thread's
override QUERY_QUADS: u32 = TILE_ROWS * STRIDE;
override CHAINS: u32 = TILE_ROWS / 4u * GROUPS;                   // groups of a chunk, for 4 rows each

// Weights of 4 rows: of each group its 16 and, behind them, their sum: threads that have a group each read different banks. The 4
// more do the same for those of different rows.
const GROUP_STRIDE = GROUP + 1u;
const WEIGHT_STRIDE = GROUPS * GROUP_STRIDE + 4u;
override WEIGHT_QUADS: u32 = TILE_ROWS / 4u * WEIGHT_STRIDE;

const LOWEST = -3.4028234e38;

// A vec4 of each of 4 rows. Members, not an array: what has no index certainly lies in registers.
struct Rows {
  a: vec4f,
  b: vec4f,
  c: vec4f,
  d: vec4f,
}

alias Products = array<Rows, MAX_KEYS>;
alias Values = array<Rows, MAX_COLUMNS>;

var<workgroup> query: array<vec4f, QUERY_QUADS>;    // scaled, zero past the head's end
var<workgroup> weights: array<vec4f, WEIGHT_QUADS>; // scores at first
var<workgroup> largest_keys: array<atomic<u32>, TILE_ROWS>; // of the scores of a chunk: a maximum of integers needs no tree

// 0 and -0, which no compiler knows to be so. A chain that begins with a 0 it knows would begin with a product without
// addition; what is the whole chain for heads of up to 4 channels then melts into the additions after it, unrounded. And -0 is
// what adds nothing: x + -0 is x, whatever x is, and x + 0 would turn -0 into 0.
var<private> zero: f32;
var<private> nothing: f32;

// `no_bits` is 0, not known before the kernel runs.
fn make_zeros(no_bits: u32) {
  zero = bitcast<f32>(no_bits);
  nothing = bitcast<f32>(no_bits | 0x80000000u);
}

fn lane_of(thread: u32) -> u32 {
  return thread / 2u % LANES;
}

// Which 4 rows of the tile are a thread's.
fn quarter_of(thread: u32) -> u32 {
  return thread / (2u * LANES) * 2u + thread % 2u;
}

// How many positions each of 4 rows sees, where the first row of the tile sees `all_see` and the last one `end`.
fn seen_by(quarter: u32, all_see: u32, end: u32) -> vec4u {
  return min(vec4u(all_see + quarter * 4u) + vec4u(0u, 1u, 2u, 3u), vec4u(end));
}

// Where the weights of 4 rows for position i of a chunk are.
fn weight_place(quarter: u32, i: u32) -> u32 {
  return quarter * WEIGHT_STRIDE + i / GROUP * GROUP_STRIDE + i % GROUP;
}

fn same_rows(x: vec4f) -> Rows {
  return Rows(x, x, x, x);
}

fn select_rows(no: Rows, yes: Rows, which: vec4<bool>) -> Rows {
  return Rows(
    select(no.a, yes.a, which.x), select(no.b, yes.b, which.y),
    select(no.c, yes.c, which.z), select(no.d, yes.d, which.w),
  );
}

fn add_rows(x: Rows, y: Rows) -> Rows {
  return Rows(x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d);
}

// sums + weight · value, with a weight for each row.
fn add_weighted(sums: Rows, weight: vec4f, value: vec4f) -> Rows {
  return Rows(
    fma(vec4f(weight.x), value, sums.a), fma(vec4f(weight.y), value, sums.b),
    fma(vec4f(weight.z), value, sums.c), fma(vec4f(weight.w), value, sums.d),
  );
}

// x · weight + y · shrink, with both for each row.
fn merge_rows(x: Rows, weight: vec4f, y: Rows, shrink: vec4f) -> Rows {
  return Rows(
    fma(x.a, vec4f(weight.x), y.a * shrink.x), fma(x.b, vec4f(weight.y), y.b * shrink.y),
    fma(x.c, vec4f(weight.z), y.c * shrink.z), fma(x.d, vec4f(weight.w), y.d * shrink.w),
  );
}

// Score the staged tile, which begins at `at` in the chunk at `first`. Row r sees the positions below seen[r]. Returns the
// largest score of each row as integers.
fn score_tile(first: u32, at: u32, seen: vec4u, thread: u32) -> vec4u {
  let lane = lane_of(thread);
  let quarter = quarter_of(thread);
  let own_query = quarter * 4u * STRIDE;
  let own_key = lane * STRIDE;

  var products: Products;
  for (var j = 0u; j < KEYS; j++) {
    products[j] = same_rows(vec4f(zero));
  }
  for (var quad = 0u; quad < HEAD_QUADS; quad++) {
    let a = query[own_query + quad];
    let b = query[own_query + STRIDE + quad];
    let c = query[own_query + 2u * STRIDE + quad];
    let d = query[own_query + 3u * STRIDE + quad];
    for (var j = 0u; j < KEYS; j++) {
      let key = stage[own_key + j * LANES * STRIDE + quad];
      let sums = products[j];
      products[j] = Rows(fma(a, key, sums.a), fma(b, key, sums.b), fma(c, key, sums.c), fma(d, key, sums.d));
    }
  }

  var largest = vec4u();
  for (var j = 0u; j < KEYS; j++) {
    let i = at + j * LANES + lane;
    let p = products[j];
    let sums = vec4f(sum_of(p.a), sum_of(p.b), sum_of(p.c), sum_of(p.d));
    let scores = select(vec4f(LOWEST), sums, vec4u(first + i) < seen);
    largest = max(largest, vec4u(ordered(scores.x), ordered(scores.y), ordered(scores.z), ordered(scores.w)));
    weights[weight_place(quarter, i)] = scores;
  }
  return largest;
}

fn sum_of(p: vec4f) -> f32 {
  return (p.x + p.y) + (p.z + p.w);
}

// The largest score of each of 4 rows.
fn largest_of(quarter: u32) -> vec4f {
  let own = quarter * 4u;
  return vec4f(
    from_ordered(atomicLoad(&largest_keys[own])), from_ordered(atomicLoad(&largest_keys[own + 1u])),
    from_ordered(atomicLoad(&largest_keys[own + 2u])), from_ordered(atomicLoad(&largest_keys[own + 3u])),
  );
}

// Turn the scores of the chunk into weights relative to the largest, and add them up by groups: a thread has a group of 4 rows.
fn weigh_chunk(first: u32, all_see: u32, end: u32, thread: u32) {
  for (var chain = thread; chain < CHAINS; chain += WORKGROUP_SIZE) {
    let quarter = chain / GROUPS;
    let begin = chain % GROUPS * GROUP;
    let place = weight_place(quarter, begin);
    let largest = largest_of(quarter);
    let seen = seen_by(quarter, all_see, end);
    var sum = vec4f();
    for (var i = 0u; i < GROUP; i++) {
      let weight = exp(weights[place + i] - largest);
      weights[place + i] = weight;
      sum = select(sum, sum + weight, vec4u(first + begin + i) < seen);
    }
    weights[place + GROUP] = sum;
  }
}

// The sums of a chunk's weights, groups added in order. That of a group that a row does not see is 0.
fn chunk_sums(quarter: u32) -> vec4f {
  let place = quarter * WEIGHT_STRIDE + GROUP;
  var sums = weights[place];
  for (var group = 1u; group < GROUPS; group++) {
    sums += weights[place + group * GROUP_STRIDE];
  }
  return sums;
}
