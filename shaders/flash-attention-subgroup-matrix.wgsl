// with storage-f16.wgsl
// with flash-tile-64.wgsl | flash-tile-16.wgsl
// with flash-matrices.wgsl
// with flash-softmax.wgsl
// with slots-contiguous.wgsl | slots-paged.wgsl
//
// flash-attention.wgsl by subgroup matrices (tensor cores), for heads of 64 channels and everything in halves (Dao et al., 2022).
//
//   y[t, h] = Σ_j p[t, j] · v[j, h] / Σ_j p[t, j],   p[t, j] = half(exp2(scale · log2(e) · q[t, h] · k[j, h] - m[t]))
//
// A workgroup owns one head of a tile of neighbouring rows of one sequence, and walks over its keys and values, 64 positions at a
// time, from the first on. Tiles of up to 16 rows and larger ones have a form each (flash-tile-….wgsl), which leaves the others
// alone. A sum is the same chain of matrix products in both, and what is masked adds zeros: a row has the same bits alone, in a
// prompt, and in any piece of one.
//
// A thread cannot see a matrix's elements, so scores go through workgroup memory. Sums stay in matrices, which cannot be scaled row
// by row; so m is not the maximum so far, but one that is at most RISE below it: only when a row's maximum rises by more, sums
// take the way through memory. The sum of the weights is one more column of the product, of ones, and so sees the same rounded
// weights.
//
//   dispatch       [H, tiles]
//   qkv            [T, C]     f16, the queries
//   k, v           [slots, H, 64]  f16
//   context_lens   [S]        u32, tokens of each sequence, the new ones included
//   query_starts   [S + 1]    u32, the new tokens of sequence s are rows query_starts[s] … query_starts[s + 1] - 1
//   tiles          [n, 2]     u32, sequence and first row of each tile; NONE: no tile
//   slot_table     where positions lie: see the part
//   y              [T, C]     f16

const NONE = 0xffffffffu;
const LOG2_E = 1.4426950408889634;

override HEADS: u32 = 1u;

struct Params {
  qkv_stride: u32,
  y_stride: u32,
  scale: f32,      // usually 1/√head_size
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> qkv: array<Oct>;
@group(0) @binding(2) var<storage, read> k: array<Oct>;
@group(0) @binding(3) var<storage, read> v: array<Oct>;
@group(0) @binding(4) var<storage, read> context_lens: array<u32>;
@group(0) @binding(5) var<storage, read> query_starts: array<u32>;
@group(0) @binding(6) var<storage, read> tiles: array<u32>;
@group(0) @binding(7) var<storage, read> slot_table: array<u32>;
@group(0) @binding(8) var<storage, read_write> y: array<Packed4>;

// Where the head of a position begins in k and v, in octs; past the context the last one stands in.
fn place_of(sequence: u32, head: u32, position: u32, context: u32) -> u32 {
  return (slot_of(sequence, min(position, context - 1u)) * HEADS + head) * OCTS;
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  let head = workgroup.x;
  let sequence = tiles[2u * workgroup.y];
  if (sequence == NONE) { // the same for all threads: no barrier is missed
    return;
  }

  // 1. The rows of this tile, and how much the first and the last of them see.
  let first_row = tiles[2u * workgroup.y + 1u];
  let end = query_starts[sequence + 1u];
  let count = min(TILE_ROWS, end - first_row);
  let context = context_lens[sequence];
  let first_visible = context - (end - 1u - first_row);
  let visible = first_visible + count - 1u;
  if ((count <= FEW_ROWS) != FEW) {
    return; // the other form's
  }

  // 2. The queries, and where the first keys lie.
  for (var i = 0u; i < TILE_ROWS * OCTS / THREADS; i++) {
    let oct = i * THREADS + thread;
    let row = oct / OCTS;
    let query = qkv[(first_row + min(row, count - 1u)) * (params.qkv_stride / 8u) + head * OCTS + oct % OCTS];
    weights[row * STRIDE + oct % OCTS] = select(vec4u(), query, row < count);
  }
  if (thread < KEYS) {
    rows_of_slots[thread] = place_of(sequence, head, thread, context);
  }
  if (thread < TILE_ROWS) {
    references[thread] = LOWEST;
  }
  workgroupBarrier(); // queries and places are there

  let own_row = select(16u * subgroup, 0u, FEW); // of the subgroup
  let queries = load_queries(own_row);

  var sums: Sums;
  var next_keys: array<Oct, LOADS>;
  var next_values: array<Oct, LOADS>;
  for (var i = 0u; i < LOADS; i++) {
    let oct = i * THREADS + thread;
    let at = rows_of_slots[oct / OCTS] + oct % OCTS;
    next_keys[i] = k[at];
    next_values[i] = v[at];
  }

  // The places of the tile after the next are looked up a turn ahead too.
  var next_place = place_of(sequence, head, KEYS + thread % KEYS, context);

  // 3. Tile by tile over the positions that any row sees.
  for (var first = 0u; first < visible; first += KEYS) {
    workgroupBarrier(); // all are done with the tile before, and with the places of this one
    for (var i = 0u; i < LOADS; i++) {
      let oct = i * THREADS + thread;
      let inside = first + oct / OCTS < context; // a weight of zero would not stop a NaN of an unused slot
      keys[oct / OCTS * STRIDE + oct % OCTS] = select(vec4u(), next_keys[i], inside);
      values[oct / OCTS * STRIDE + oct % OCTS] = select(vec4u(), next_values[i], inside);
    }
    if (thread < KEYS) {
      rows_of_slots[thread] = next_place;
    }
    workgroupBarrier(); // keys, values and the places of the next ones are there

    // 3a. The next tile sets out: it arrives while this one is used.
    for (var i = 0u; i < LOADS; i++) {
      let oct = i * THREADS + thread;
      let at = rows_of_slots[oct / OCTS] + oct % OCTS;
      next_keys[i] = k[at];
      next_values[i] = v[at];
    }
    next_place = place_of(sequence, head, first + 2u * KEYS + thread % KEYS, context);

    // 3b. Scores, 16 × 16 at a time.
    if (FEW) {
      score(queries, own_row, 16u * subgroup);
    } else {
      score(queries, own_row, 0u);
      score(queries, own_row, 16u);
      score(queries, own_row, 32u);
      score(queries, own_row, 48u);
    }
    workgroupBarrier(); // the scores are there

    // 3c. Weights of the scores, by the threads that share a row, which are neighbours. In the first tile there is nothing yet
    //     that would have to shrink.
    let row = thread / SHARE;
    let row_visible = first_visible + min(row, count - 1u);
    let scale = params.scale * LOG2_E;
    let before = references[row];
    var reference: f32;
    if (FEW) {
      reference = weigh_few(row, thread % SHARE, first, row_visible, scale, before);
    } else {
      reference = weigh_many(row, thread % SHARE, first, row_visible, scale, before);
    }
    let any_rises = subgroupAny(reference != before && first > 0u);
    if (thread % 32u == 0u) {
      rises[subgroup] = select(0u, 1u, any_rises);
    }
    let any_rise = workgroupUniformLoad(&rises); // the weights are there, and every thread has read its row's reference
    if (thread % SHARE == 0u) {
      references[row] = reference;
      shrinks[row] = exp2(before - reference); // 1 where it stays
    }

    // 3d. Where a reference has risen, what was summed up shrinks to match.
    if (any_rise[0] + any_rise[1] + any_rise[2] + any_rise[3] != 0u) {
      store_sums(&sums, subgroup);
      workgroupBarrier(); // the sums and their factors are there
      for (var i = thread; i < TILE_ROWS * SCORE_STRIDE; i += THREADS) {
        scores[i] *= shrinks[i / SCORE_STRIDE];
      }
      workgroupBarrier(); // they have shrunk
      load_sums(&sums, subgroup);
    }

    // 3e. The weighted values, 16 positions at a time, and the sum of the weights.
    add_values(&sums, own_row, 0u, subgroup);
    add_values(&sums, own_row, 16u, subgroup);
    add_values(&sums, own_row, 32u, subgroup);
    add_values(&sums, own_row, 48u, subgroup);
  }

  // 4. Divide and store.
  workgroupBarrier(); // all have read their scores
  store_sums(&sums, subgroup);
  workgroupBarrier(); // the sums are there
  for (var i = thread; i < count * QUADS; i += THREADS) {
    let row = i / QUADS;
    let sum = scores[row * SCORE_STRIDE + QUADS].x;
    let quad = scores[row * SCORE_STRIDE + i % QUADS];
    y[((first_row + row) * params.y_stride) / 4u + head * QUADS + i % QUADS] = pack4(quad / sum);
  }
}
