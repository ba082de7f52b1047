enable chromium_experimental_subgroup_matrix;
enable f16;
enable subgroups;
// Part: what flash-attention-subgroup-matrix.wgsl keeps in workgroup memory, and the matrices that it makes of it, for four
// subgroups of 32 threads.

alias Oct = vec4u; // eight halves
alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Result = subgroup_matrix_result<f32, 16, 16>;

const SUBGROUPS = 4u;
const THREADS = 32u * SUBGROUPS;
const FEW_ROWS = 16u;
const KEYS = 64u; // positions at a time, and channels of a head
const OCTS = KEYS / 8u;
const QUADS = KEYS / 4u;
const LOADS = KEYS * OCTS / THREADS; // of a thread, of keys and of values

// Rows are padded, so that rows below one another begin in different banks. A row of scores has room for the sum of weights.
const STRIDE = OCTS + 1u;
const SCORE_STRIDE = QUADS + 4u * SUM_PLACES;

var<workgroup> keys: array<Oct, KEYS * STRIDE>;
var<workgroup> values: array<Oct, KEYS * STRIDE>;
var<workgroup> weights: array<Oct, TILE_ROWS * STRIDE>; // first the queries
var<workgroup> scores: array<vec4f, TILE_ROWS * SCORE_STRIDE>;
var<workgroup> references: array<f32, TILE_ROWS>; // m of each row
var<workgroup> shrinks: array<f32, TILE_ROWS>;    // what a row's sums are multiplied with
var<workgroup> rows_of_slots: array<u32, KEYS>;   // where each position's head begins in k and v, in octs
var<workgroup> rises: array<u32, SUBGROUPS>;      // did any m of a subgroup's rows rise?

// The weighted values of 16 rows, 16 channels each (the first alone in tiles of 16), and the sum of the weights.
struct Sums {
  values0: Result,
  values1: Result,
  values2: Result,
  values3: Result,
  weights: Result,
}

fn key_matrix(position: u32, channel: u32) -> Right {
  return subgroupMatrixLoad<Right, col_major>(&keys, position * STRIDE + channel / 8u, STRIDE);
}

fn value_matrix(position: u32, channel: u32) -> Right {
  return subgroupMatrixLoad<Right, row_major>(&values, position * STRIDE + channel / 8u, STRIDE);
}

// 16 rows of queries, 16 channels each.
struct Queries {
  channels0: Left,
  channels16: Left,
  channels32: Left,
  channels48: Left,
}

fn load_queries(row: u32) -> Queries {
  let at = row * STRIDE;
  return Queries(
    subgroupMatrixLoad<Left, row_major>(&weights, at, STRIDE),
    subgroupMatrixLoad<Left, row_major>(&weights, at + 2u, STRIDE),
    subgroupMatrixLoad<Left, row_major>(&weights, at + 4u, STRIDE),
    subgroupMatrixLoad<Left, row_major>(&weights, at + 6u, STRIDE),
  );
}

// Scores of 16 rows and 16 positions.
fn score(queries: Queries, row: u32, position: u32) {
  var sum = Result();
  sum = subgroupMatrixMultiplyAccumulate(queries.channels0, key_matrix(position, 0u), sum);
  sum = subgroupMatrixMultiplyAccumulate(queries.channels16, key_matrix(position, 16u), sum);
  sum = subgroupMatrixMultiplyAccumulate(queries.channels32, key_matrix(position, 32u), sum);
  sum = subgroupMatrixMultiplyAccumulate(queries.channels48, key_matrix(position, 48u), sum);
  subgroupMatrixStore<row_major>(&scores, row * SCORE_STRIDE + position / 4u, sum, SCORE_STRIDE);
}

// Add the weighted values of 16 positions, and their weights.
fn add_values(sums: ptr<function, Sums>, row: u32, position: u32, subgroup: u32) {
  let weight = subgroupMatrixLoad<Left, row_major>(&weights, row * STRIDE + position / 8u, STRIDE);
  if (FEW) {
    (*sums).values0 = subgroupMatrixMultiplyAccumulate(weight, value_matrix(position, 16u * subgroup), (*sums).values0);
  } else {
    (*sums).values0 = subgroupMatrixMultiplyAccumulate(weight, value_matrix(position, 0u), (*sums).values0);
    (*sums).values1 = subgroupMatrixMultiplyAccumulate(weight, value_matrix(position, 16u), (*sums).values1);
    (*sums).values2 = subgroupMatrixMultiplyAccumulate(weight, value_matrix(position, 32u), (*sums).values2);
    (*sums).values3 = subgroupMatrixMultiplyAccumulate(weight, value_matrix(position, 48u), (*sums).values3);
  }
  (*sums).weights = subgroupMatrixMultiplyAccumulate(weight, Right(1.0), (*sums).weights);
}

// Put sums where their rows and columns are in `scores`, the sum of weights behind them.
fn store_sums(sums: ptr<function, Sums>, subgroup: u32) {
  if (FEW) {
    subgroupMatrixStore<row_major>(&scores, 4u * subgroup, (*sums).values0, SCORE_STRIDE);
    subgroupMatrixStore<row_major>(&scores, QUADS + 4u * subgroup, (*sums).weights, SCORE_STRIDE);
  } else {
    let row = 16u * subgroup * SCORE_STRIDE;
    subgroupMatrixStore<row_major>(&scores, row, (*sums).values0, SCORE_STRIDE);
    subgroupMatrixStore<row_major>(&scores, row + 4u, (*sums).values1, SCORE_STRIDE);
    subgroupMatrixStore<row_major>(&scores, row + 8u, (*sums).values2, SCORE_STRIDE);
    subgroupMatrixStore<row_major>(&scores, row + 12u, (*sums).values3, SCORE_STRIDE);
    subgroupMatrixStore<row_major>(&scores, row + QUADS, (*sums).weights, SCORE_STRIDE);
  }
}

fn load_sums(sums: ptr<function, Sums>, subgroup: u32) {
  if (FEW) {
    (*sums).values0 = subgroupMatrixLoad<Result, row_major>(&scores, 4u * subgroup, SCORE_STRIDE);
    (*sums).weights = subgroupMatrixLoad<Result, row_major>(&scores, QUADS + 4u * subgroup, SCORE_STRIDE);
  } else {
    let row = 16u * subgroup * SCORE_STRIDE;
    (*sums).values0 = subgroupMatrixLoad<Result, row_major>(&scores, row, SCORE_STRIDE);
    (*sums).values1 = subgroupMatrixLoad<Result, row_major>(&scores, row + 4u, SCORE_STRIDE);
    (*sums).values2 = subgroupMatrixLoad<Result, row_major>(&scores, row + 8u, SCORE_STRIDE);
    (*sums).values3 = subgroupMatrixLoad<Result, row_major>(&scores, row + 12u, SCORE_STRIDE);
    (*sums).weights = subgroupMatrixLoad<Result, row_major>(&scores, row + QUADS, SCORE_STRIDE);
  }
}
