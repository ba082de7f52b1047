// with storage-f32.wgsl | storage-f16.wgsl | storage-i8.wgsl
//
// Token plus position embedding:  y[t, c] = wte[token_ids[t], c] + wpe[positions[t], c]
//
// One thread makes four neighbouring channels. `wte` may be a block of rows of the whole table, when the table is larger
// than one binding may be: then a dispatch per block fills in the tokens whose row it holds.
//
//   dispatch              [ceil(quads / 64), T]
//   token_ids, positions  [T]     u32
//   wte                   [rows, C]  from row first_row of the vocabulary on
//   wte_scales            [V]     f32, read when SCALED: of the whole table
//   wpe                   [P, C]
//   wpe_scales            [P]     f32, read when SCALED
//   y                     [T, C]  f32

const WORKGROUP_SIZE = 64u;

struct Params {
  quads: u32,     // vec4s in a row
  first_row: u32, // vocabulary row that wte begins with
  rows: u32,      // vocabulary rows in wte
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> token_ids: array<u32>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read> wte: array<Packed4>;
@group(0) @binding(4) var<storage, read> wte_scales: array<f32>;
@group(0) @binding(5) var<storage, read> wpe: array<Packed4>;
@group(0) @binding(6) var<storage, read> wpe_scales: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let quad = id.x;
  let token = id.y;
  let vocabulary_row = token_ids[token];
  if (quad >= params.quads || vocabulary_row < params.first_row || vocabulary_row - params.first_row >= params.rows) {
    return;
  }
  let word = unpack4(wte[(vocabulary_row - params.first_row) * params.quads + quad]);
  let place = unpack4(wpe[positions[token] * params.quads + quad]);
  if (SCALED) {
    let scaled_place = place * (wpe_scales[positions[token]] * SCALE_UNIT);
    y[token * params.quads + quad] = fma(word, vec4f(wte_scales[vocabulary_row] * SCALE_UNIT), scaled_place);
  } else {
    y[token * params.quads + quad] = word + place;
  }
}
