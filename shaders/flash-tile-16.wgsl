// Part: tiles of up to 16 rows for flash-attention-subgroup-matrix.wgsl: a step that decodes has one row a sequence. All subgroups
// have the same rows, and each 16 positions of the scores and 16 channels of the values. Eight threads share a row of scores.
// It needs half the workgroup memory, so that twice as many workgroups wait for their loads at a time.

const FEW = true;
const TILE_ROWS = 16u;
const SHARE = 8u;
const SUM_PLACES = 4u; // where a row of scores has room for sums of weights, 16 of them a place: one of each subgroup
