// Chooses the next token of each sequence, and advances the step arrays by one token.
//
// One workgroup owns one sequence. It does what src/generate/sampler.ts does: repetition penalty, temperature, top-k,
// top-p, min-p, then the inverse of the cumulative distribution over ascending ids at a random number; greedy at
// temperature 0. Settings decide which of the ways is taken, so that the short ones stay short. The token does not depend
// on WORKGROUP_SIZE or on the order in which threads run.
//
//   dispatch    [S]
//   logits      [S, V]           f32, rows padded to 4 · row_quads
//   settings    [S, SETTINGS]    temperature, top-k (u32), top-p, min-p, repetition penalty, seed low, seed high (u32),
//                                sequence id (u32); f32 bits where nothing else is said. See sample-place.wgsl for more
//   slot_table                   see slots-….wgsl
//   bests       [S, 2, BESTS]    u32: see sample-best.wgsl; any other buffer where BESTS is 0
//   seen        [S, seen_words]  bit set: ids of the prompt and of the tokens so far; the token is added
//   step        [6, step_stride] u32: token_ids, positions, slot_mapping, context_lens, generated, ring
//   tokens      [ring_size, token_stride]  u32: the token goes to row ring mod ring_size
//
// A row with NaN or Infinity, or with nothing but -Infinity, gives the token 0xffffffff, and the next step computes token 0.

// with slots-contiguous.wgsl | slots-paged.wgsl
// with sample-place.wgsl
// with philox.wgsl
// with score-key.wgsl
// with sample-row.wgsl
// with sample-best.wgsl
// with sample-draw.wgsl
// with sample-cut.wgsl
// with sample-bisect.wgsl
// with sample-few.wgsl

struct Params {
  cols: u32,          // V
  quads: u32,         // vec4s of a row that hold its V logits
  row_quads: u32,     // vec4s from one row of logits to the next
  seen_words: u32,
  token_stride: u32,  // words from one row of tokens to the next
  step_stride: u32,   // words from one step array to the next
  ring_size: u32,
  max_positions: u32, // a token at this position has no slot
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<vec4f>;
@group(0) @binding(2) var<storage, read> settings: array<u32>;
@group(0) @binding(3) var<storage, read> slot_table: array<u32>;
@group(0) @binding(4) var<storage, read> bests: array<u32>;
@group(0) @binding(5) var<storage, read_write> seen: array<u32>;
@group(0) @binding(6) var<storage, read_write> step: array<u32>;
@group(0) @binding(7) var<storage, read_write> tokens: array<u32>;

// True when every sequence of every step is greedy: the compiler then drops all that random choice needs, and the kernel is
// a small one.
override GREEDY: bool = false;

const NONE = 0xffffffffu;      // no token
const LARGEST = 3.4028234e38;  // the largest finite float
const LOG2_E = 1.4426950408889634;
const LN_2 = 0.6931471805599453;
const TOTAL_MASS = 2147483648.0; // 2^31: rounding each of millions of masses up does not make their sum overflow
const SPAN = 104.0;            // e^-104 is less than half the smallest float
const MIN_TEMPERATURE = 1e-30; // so that no product with its inverse overflows
const MAX_TEMPERATURE = 1e30;

var<workgroup> chosen: atomic<u32>;
var<workgroup> hot_count: atomic<u32>;
var<workgroup> random: f32;

fn setting(s: u32, i: u32) -> f32 {
  return bitcast<f32>(settings[s * SETTINGS + i]);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let s = workgroup.x;
  if (!ADVANCES && settings[s * SETTINGS + 9u] == NONE) { // the same for all threads: no barrier is missed
    return;
  }
  let temperature = setting(s, 0u);
  let top_k = settings[s * SETTINGS + 1u];
  let top_p = setting(s, 2u);
  let is_greedy = GREEDY || temperature == 0.0;

  let is_first = thread == 0u;
  let is_last = thread == WORKGROUP_SIZE - 1u;
  let place = place_of(s);

  // 1. What needs no logits.
  if (is_first) {
    atomicStore(&chosen, NONE);
  }
  if (!is_greedy && thread == WORKGROUP_SIZE / 2u) { // of another subgroup than those that find the best
    let at = s * SETTINGS;
    let seed = vec2u(settings[at + 5u], settings[at + 6u]);
    random = uniform_random(seed, settings[at + 7u], place.generated);
  }

  // 2. The highest score. Its bits tell a row that nothing can be chosen from. Where the head has found it, a greedy row is
  // done. The search comes before the question whether it helps, because the penalty is still on its way.
  var row = Row(s * params.row_quads, seen_row_of(s) * params.seen_words, setting(s, 4u), 0.0, 0.0, -LARGEST);
  if (BESTS > 0u) {
    if (!GREEDY) {
      lanes_from_bests(thread, s);
    }
    find_best(thread, s);
  }
  let is_known = BESTS > 0u && row.penalty == 1.0;
  if (is_known && is_greedy) {
    if (is_first) {
      let best = found_best();
      write_token(s, select(NONE, best.y, is_score(best.x)), place);
    }
    if (is_last) {
      write_place(s, place.position);
    }
    return;
  }
  let is_few = top_k > 0u && top_k <= FEW;
  let by_bests = is_known && BEST_QUADS > 0u; // a small top-k needs each lane's maximum, or the shares'
  var max_bits = 0u;
  if (is_known && (by_bests || !is_few)) {
    if (is_first) {
      let key = found_best().x;
      agreed = select(infinity_bits, bitcast<u32>(from_ordered(key)), is_score(key));
    }
    max_bits = workgroupUniformLoad(&agreed); // a barrier: thread 0 has written it
  } else {
    max_bits = row_max_bits(thread, row);
  }
  row.max = bitcast<f32>(max_bits);
  let is_number = (max_bits & 0x7fffffffu) < 0x7f800000u;

  // 3. The token.
  if (is_number && is_greedy) {
    pick_best(thread, row);
  } else if (is_number && !GREEDY) {
    let t = clamp(temperature, MIN_TEMPERATURE, MAX_TEMPERATURE);
    row.factor = LOG2_E / t;
    row.lowest = max(row.max - SPAN * t, -LARGEST);
    let lowest = lowest_of_min_p(row, setting(s, 3u));
    var is_drawn = false;
    if (is_few) {
      is_drawn = draw_of_few(thread, row, by_bests, top_k, top_p, lowest, random);
    }
    if (!is_drawn) {
      draw_of_all(thread, row, top_k, top_p, lowest, random);
    }
  }
  workgroupBarrier(); // the token is chosen
  if (is_first) {
    write_token(s, atomicLoad(&chosen), place);
  }
  if (is_last) {
    write_place(s, place.position);
  }
}
