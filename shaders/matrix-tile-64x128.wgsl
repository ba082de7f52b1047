// Part: tiles for a prompt: two subgroups with 64 × 64 sums each, which load least from workgroup memory for what they multiply.

const TILE_ROWS = 64u;
const TILE_COLUMNS = 128u;
const TILE_DEPTH = 32u;
const SUBGROUP_ROWS = 1u;    // subgroups along the rows of a tile
const SUBGROUP_COLUMNS = 2u; // and along its columns
