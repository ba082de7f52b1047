// with storage-f32.wgsl | storage-f16.wgsl
// with slots-contiguous.wgsl | slots-paged.wgsl
// with score-key.wgsl
// with flash-stage.wgsl
// with flash-rows.wgsl
// with flash-values.wgsl
//
// Causal attention of many new tokens: FlashAttention (Dao et al., 2022) over strips or pages of keys and values.
//
//   y[t, h] = softmax_j(scale · q[t, h] · k[j, h]) · v[j, h]   over the positions j that token t may see
//
// One workgroup owns one head of a tile of up to TILE_ROWS neighbouring rows of one sequence. It walks over the context as far as
// its last row sees, chunk by chunk: first the scores of a chunk, then its weights, then its values. A tile of keys or values
// is loaded once for all rows; in attention.wgsl each row loads its own. The order of summation is the same, and so are the bits.
//
//   dispatch       [H, tiles]
//   qkv            [T, 3 · C]  f32, of which the query is read; rows padded to `qkv_stride`
//   k, v           [slots, H, HEAD_QUADS · 4]
//   slot_table     see slots-contiguous.wgsl and slots-paged.wgsl
//   context_lens   [S]         u32, tokens of each sequence, the new ones included
//   query_starts   [S + 1]     u32, the new tokens of sequence s are rows query_starts[s] … query_starts[s + 1] - 1
//   tiles          [tiles, 2]  u32, sequence and first row of each tile; NONE: no tile, for which nothing is done
//   y              [T, C]      f32, rows padded to `y_stride`

const NONE = 0xffffffffu;

struct Params {
  head_size: u32,
  qkv_stride: u32,
  y_stride: u32,
  scale: f32,      // usually 1/√head_size
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;
@group(0) @binding(2) var<storage, read> k: array<Packed4>;
@group(0) @binding(3) var<storage, read> v: array<Packed4>;
@group(0) @binding(4) var<storage, read> slot_table: array<u32>;
@group(0) @binding(5) var<storage, read> context_lens: array<u32>;
@group(0) @binding(6) var<storage, read> query_starts: array<u32>;
@group(0) @binding(7) var<storage, read> tiles: array<u32>;
@group(0) @binding(8) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let head = workgroup.x;
  let sequence = tiles[workgroup.y * 2u];
  let first_row = tiles[workgroup.y * 2u + 1u];
  if (sequence == NONE) { // the same for all threads: no barrier is missed
    return;
  }

  // 1. The rows of the tile, and how much each sees: the sequence's whole context, less the new tokens after the row. Past
  //    the last row it stands in again, and is not stored.
  let all_rows = query_starts[sequence + 1u];
  let rows = min(TILE_ROWS, all_rows - first_row);
  let all_see = context_lens[sequence] - (all_rows - 1u - first_row);
  let end = all_see + rows - 1u;
  let quarter = quarter_of(thread);
  let own_row = quarter * 4u;
  let seen = seen_by(quarter, all_see, end);
  make_zeros(workgroup.z);

  // 2. The queries, scaled, where all threads can read them; zero past the head's end, as in the cache.
  locate_chunk(sequence, head, 0u, end, thread);
  let channel = head * params.head_size;
  for (var i = thread; i < TILE_ROWS * HEAD_QUADS; i += WORKGROUP_SIZE) {
    let quad = i % HEAD_QUADS;
    let from_row = (first_row + min(i / HEAD_QUADS, rows - 1u)) * params.qkv_stride + channel;
    var values = vec4f();
    for (var c = 0u; c < 4u && quad * 4u + c < params.head_size; c++) {
      values[c] = qkv[from_row + quad * 4u + c];
    }
    query[i / HEAD_QUADS * STRIDE + quad] = values * params.scale;
  }
  if (thread < TILE_ROWS) {
    atomicStore(&largest_keys[thread], 0u);
  }
  workgroupBarrier(); // the first chunk is located
  fetch_keys(0u, thread);

  // 3. Chunk by chunk, up to what the last row sees.
  var largest = vec4f(LOWEST);
  var sum = vec4f();
  var values: Values;
  for (var first = 0u; first < end; first += CHUNK) {
    let count = min(CHUNK, end - first);

    // 3a. The scores and the largest of each row. While a tile is in use the next one is on its way: of keys, then of values.
    var largest_of_thread = vec4u();
    for (var at = 0u; at < count; at += KEY_TILE) {
      store_tile(thread);
      workgroupBarrier(); // the keys are there, and so are queries and the least maximum
      if (at + KEY_TILE < count) {
        fetch_keys(first + at + KEY_TILE, thread);
      } else {
        fetch_values(first, thread);
      }
      largest_of_thread = max(largest_of_thread, score_tile(first, at, seen, thread));
      if (at + KEY_TILE >= count) {
        atomicMax(&largest_keys[own_row], largest_of_thread.x);
        atomicMax(&largest_keys[own_row + 1u], largest_of_thread.y);
        atomicMax(&largest_keys[own_row + 2u], largest_of_thread.z);
        atomicMax(&largest_keys[own_row + 3u], largest_of_thread.w);
      }
      workgroupBarrier(); // the tile is free; after the last one, every score is in a maximum
    }

    // 3b. The weights. The next chunk is located meanwhile.
    let chunk_largest = largest_of(quarter);
    weigh_chunk(first, all_see, end, thread);
    if (first + CHUNK < end) {
      locate_chunk(sequence, head, first + CHUNK, end, thread);
    }

    // 3c. The values.
    var chunk_values: Values;
    for (var column = 0u; column < COLUMNS; column++) {
      chunk_values[column] = same_rows(vec4f(nothing));
    }
    for (var at = 0u; at < count; at += KEY_TILE) {
      store_tile(thread);
      workgroupBarrier(); // the values are there, and so are the weights, and where the next chunk lies
      if (at + KEY_TILE < count) {
        fetch_values(first + at + KEY_TILE, thread);
      } else if (first + CHUNK < end) {
        fetch_keys(first + CHUNK, thread);
      }
      add_tile(&chunk_values, first, at, seen, all_see, end, thread);
      workgroupBarrier(); // the tile is free
    }
    if (thread < TILE_ROWS) {
      atomicStore(&largest_keys[thread], 0u);
    }

    // 3d. The chunk joins the context before it, as in attention.wgsl, in those rows that see any of it.
    let grown = max(largest, chunk_largest);
    let shrink = exp(largest - grown);
    let weight = exp(chunk_largest - grown);
    let chunk_weights = chunk_sums(quarter);
    let sees = vec4u(first) < seen;
    sum = select(sum, select(fma(chunk_weights, weight, sum * shrink), chunk_weights, first == 0u), sees);
    largest = select(largest, grown, sees);
    for (var column = 0u; column < COLUMNS; column++) {
      var merged = chunk_values[column];
      if (first > 0u) {
        merged = merge_rows(merged, weight, values[column], shrink);
      }
      values[column] = select_rows(values[column], merged, sees);
    }
  }

  // 4. Divide and store, channel by channel: a head need not begin at a multiple of four. The last head also writes the
  //    zeros behind the rows.
  for (var column = 0u; column < COLUMNS; column++) {
    let quad = column * LANES + lane_of(thread);
    let own = values[column];
    let results = array(own.a / sum.x, own.b / sum.y, own.c / sum.z, own.d / sum.w);
    for (var r = 0u; r < 4u && own_row + r < rows; r++) {
      let out = (first_row + own_row + r) * params.y_stride + channel + quad * 4u;
      for (var c = 0u; c < 4u && quad * 4u + c < params.head_size; c++) {
        y[out + c] = results[r][c];
      }
    }
  }
  if (head == HEADS - 1u && thread < rows) {
    for (var c = HEADS * params.head_size; c < params.y_stride; c++) {
      y[(first_row + thread) * params.y_stride + c] = 0.0;
    }
  }
}
