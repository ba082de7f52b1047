// Part: tiles of up to 64 rows for flash-attention-subgroup-matrix.wgsl: a subgroup has 16 rows, and all positions and channels. Two
// threads share a row of scores.

const FEW = false;
const TILE_ROWS = 64u;
const SHARE = 2u;
const SUM_PLACES = 1u; // where a row of scores has room for sums of weights, 16 of them a place
