// with storage-f32.wgsl | storage-f16.wgsl
//
// Causal attention over pages of keys and values: PagedAttention (Kwon et al., 2023).
//
//   y[t, h] = softmax_j(scale · q[t, h] · k[j, h]) · v[j, h]   over the positions j that token t may see
//
// One workgroup owns one head of one token. The softmax is online (Milakov and Gimelshein, 2018): one pass over the
// context, and no row of scores is ever stored. Read attention.wgsl first: this kernel differs from it in slot_of alone.
//
//   dispatch       [H, T]
//   qkv            [T, 3 · C]  f32, of which the query is read; rows padded to `qkv_stride`
//   k, v           [slots, H, head_quads · 4]
//   page_table     [S, table_width]  u32, the pages of each sequence in order
//   context_lens   [S]         u32, tokens of each sequence, the new ones included
//   query_starts   [S + 1]     u32, the new tokens of sequence s are rows query_starts[s] … query_starts[s + 1] - 1
//   sequence_of    [T]         u32, the sequence of each row
//   y              [T, C]      f32, rows padded to `y_stride`

const MAX_HEAD_QUADS = 32u;           // heads of up to 128 channels
override WORKGROUP_SIZE: u32 = 32u;   // 4 to 32; 4 on a CPU that plays GPU, where a barrier costs by the thread
override COLUMNS: u32 = MAX_HEAD_QUADS / WORKGROUP_SIZE; // quads of the output that a thread adds up
const MAX_COLUMNS = 8u;               // COLUMNS for the smallest WORKGROUP_SIZE
const TILE = 32u;                     // positions that are scored before their values are added up

struct Params {
  heads: u32,
  head_size: u32,
  head_quads: u32, // vec4s of a head in the cache
  qkv_stride: u32,
  y_stride: u32,
  scale: f32,      // usually 1/√head_size
  page_size: u32,   // slots in a page
  table_width: u32, // entries of a row of the page table
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;
@group(0) @binding(2) var<storage, read> k: array<Packed4>;
@group(0) @binding(3) var<storage, read> v: array<Packed4>;
@group(0) @binding(4) var<storage, read> page_table: array<u32>;
@group(0) @binding(5) var<storage, read> context_lens: array<u32>;
@group(0) @binding(6) var<storage, read> query_starts: array<u32>;
@group(0) @binding(7) var<storage, read> sequence_of: array<u32>;
@group(0) @binding(8) var<storage, read_write> y: array<f32>;

const LOWEST = -3.4028234e38;

var<workgroup> query: array<vec4f, MAX_HEAD_QUADS>;
var<workgroup> scores: array<f32, TILE>;

// Where position `position` of a sequence lies in the cache.
fn slot_of(sequence: u32, position: u32) -> u32 {
  let page = page_table[sequence * params.table_width + position / params.page_size];
  return page * params.page_size + position % params.page_size;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let head = workgroup.x;
  let head_quads = params.head_quads; // read once: not every compiler does so by itself
  let token = workgroup.y;
  let sequence = sequence_of[token];

  // 1. How much this token sees: the sequence's whole context, less the new tokens that come after this one.
  let after = query_starts[sequence + 1u] - 1u - token;
  let visible = context_lens[sequence] - after;

  // 2. The query, scaled, where all threads can read it; zero past the head's end, as in the cache.
  let channel = head * params.head_size;
  for (var quad = thread; quad < head_quads; quad += WORKGROUP_SIZE) {
    var values = vec4f();
    for (var i = 0u; i < 4u && quad * 4u + i < params.head_size; i++) {
      values[i] = qkv[token * params.qkv_stride + channel + quad * 4u + i];
    }
    query[quad] = values * params.scale;
  }
  workgroupBarrier(); // the query is there

  // 3. Tile by tile over the context. The maximum so far, the sum of exponentials and the weighted values are kept
  //    relative to that maximum; when it grows, what was gathered shrinks to match.
  var largest = LOWEST;
  var sum = 0.0;
  var values: array<vec4f, MAX_COLUMNS>;
  for (var first = 0u; first < visible; first += TILE) {
    let count = min(TILE, visible - first);

    // 3a. Each thread scores every WORKGROUP_SIZE-th position of the tile.
    for (var i = thread; i < count; i += WORKGROUP_SIZE) {
      let row = (slot_of(sequence, first + i) * params.heads + head) * head_quads;
      var products = vec4f();
      for (var quad = 0u; quad < head_quads; quad++) {
        products += query[quad] * unpack4(k[row + quad]);
      }
      scores[i] = products.x + products.y + products.z + products.w;
    }
    workgroupBarrier(); // the tile's scores are there

    // 3b. The new maximum, found by every thread for itself, so that all agree without another barrier.
    var grown = largest;
    for (var i = 0u; i < count; i++) {
      grown = max(grown, scores[i]);
    }
    let shrink = exp(largest - grown);
    largest = grown;
    sum *= shrink;
    for (var column = 0u; column < COLUMNS && column * WORKGROUP_SIZE < head_quads; column++) {
      values[column] *= shrink;
    }

    // 3c. Each thread adds up its columns of the values.
    for (var i = 0u; i < count; i++) {
      let weight = exp(scores[i] - largest);
      sum += weight;
      let row = (slot_of(sequence, first + i) * params.heads + head) * head_quads;
      for (var column = 0u; column < COLUMNS && column * WORKGROUP_SIZE < head_quads; column++) {
        let quad = column * WORKGROUP_SIZE + thread;
        if (quad < head_quads) {
          values[column] += weight * unpack4(v[row + quad]);
        }
      }
    }
    workgroupBarrier(); // all have read the scores, before the next tile overwrites them
  }

  // 4. Divide and store, channel by channel: a head need not begin at a multiple of four. The last head also writes the
  //    zeros behind the row.
  let out = token * params.y_stride;
  for (var column = 0u; column < COLUMNS && column * WORKGROUP_SIZE < head_quads; column++) {
    let quad = column * WORKGROUP_SIZE + thread;
    for (var i = 0u; i < 4u && quad * 4u + i < params.head_size; i++) {
      y[out + channel + quad * 4u + i] = values[column][i] / sum;
    }
  }
  if (head == params.heads - 1u && thread == 0u) {
    for (var c = params.heads * params.head_size; c < params.y_stride; c++) {
      y[out + c] = 0.0;
    }
  }
}
