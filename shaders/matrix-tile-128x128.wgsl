// Part: tiles for a prompt and a deep product: steps of 64 over k, twice as many products between two barriers as 64x128 has.

const TILE_ROWS = 128u;
const TILE_COLUMNS = 128u;
const TILE_DEPTH = 64u;
const SUBGROUP_ROWS = 2u;    // subgroups along the rows of a tile
const SUBGROUP_COLUMNS = 4u; // and along its columns
