// Part: how keys and values come to a workgroup of flash attention: a tile at a time, for all of its rows.
//
// A tile is KEY_TILE positions of one head, in workgroup memory, widened to f32. It begins at a multiple of KEY_TILE, so it crosses
// no more pages than it must. Where the positions of a chunk lie is looked up once, a thread a position. What costs is
// waiting, so the next tile is always on its way in registers while one is in use.
//
// The kernel binds k and v [slots, H, HEAD_QUADS · 4] of Packed4 and declares slot_of (slots-….wgsl).

const CHUNK = 128u;          // positions whose weights are relative to one maximum, as in attend-chunk.wgsl
const MAX_HEAD_QUADS = 32u;  // heads of up to 128 channels
const MAX_LOADS = 16u;       // LOADS for the largest head: of tiles of 32 positions, 32 rows and 8 lanes, and smaller ones alike

override HEADS: u32 = 1u;
override HEAD_QUADS: u32 = 16u;  // vec4s of a head in the cache; a constant, so that loops over it unroll
override TILE_ROWS: u32 = 16u;   // queries of a workgroup: 8, 16 or 32
override KEY_TILE: u32 = 32u;    // 16, 32 or 64
override LANES: u32 = 8u;        // threads that share 4 rows, 8 or 16
override WORKGROUP_SIZE: u32 = TILE_ROWS / 4u * LANES;

// Vec4s from one staged row to the next. It is odd, so that 8 threads that read rows below one another read different banks.
override STRIDE: u32 = HEAD_QUADS | 1u;
override STAGE_QUADS: u32 = KEY_TILE * STRIDE;
override TILE_QUADS: u32 = KEY_TILE * HEAD_QUADS;
override LOADS: u32 = (TILE_QUADS + WORKGROUP_SIZE - 1u) / WORKGROUP_SIZE; // of a thread for a tile

const ROWS_HELD = 2u * CHUNK; // of the chunk in use, and of the one after it

var<workgroup> head_rows: array<u32, ROWS_HELD>; // where a position's head begins in k and v, in vec4s
var<workgroup> stage: array<vec4f, STAGE_QUADS>;

var<private> fetched: array<Packed4, MAX_LOADS>;

// Look up the positions of the chunk at `first`. For those from `end` on, the last one before it stands in: what is read
// there is used by nobody.
fn locate_chunk(sequence: u32, head: u32, first: u32, end: u32, thread: u32) {
  for (var i = thread; i < CHUNK; i += WORKGROUP_SIZE) {
    let slot = slot_of(sequence, min(first + i, end - 1u));
    head_rows[(first + i) % ROWS_HELD] = (slot * HEADS + head) * HEAD_QUADS;
  }
}

// Where load i of a thread reads for the tile at position `first`; past the tile's end the last quad stands in.
fn fetch_place(first: u32, i: u32, thread: u32) -> u32 {
  var quad = i * WORKGROUP_SIZE + thread;
  if (LOADS * WORKGROUP_SIZE > TILE_QUADS) {
    quad = min(quad, TILE_QUADS - 1u);
  }
  return head_rows[(first + quad / HEAD_QUADS) % ROWS_HELD] + quad % HEAD_QUADS;
}

// The keys of the tile at position `first` set out. Their chunk was located.
fn fetch_keys(first: u32, thread: u32) {
  for (var i = 0u; i < LOADS; i++) {
    fetched[i] = k[fetch_place(first, i, thread)];
  }
}

// Its values do.
fn fetch_values(first: u32, thread: u32) {
  for (var i = 0u; i < LOADS; i++) {
    fetched[i] = v[fetch_place(first, i, thread)];
  }
}

// Put what has arrived where all threads can read it.
fn store_tile(thread: u32) {
  for (var i = 0u; i < LOADS; i++) {
    let quad = i * WORKGROUP_SIZE + thread;
    if (LOADS * WORKGROUP_SIZE == TILE_QUADS || quad < TILE_QUADS) {
      stage[quad / HEAD_QUADS * STRIDE + quad % HEAD_QUADS] = unpack4(fetched[i]);
    }
  }
}
