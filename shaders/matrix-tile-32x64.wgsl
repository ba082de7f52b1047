// Part: tiles for a step of a hundred sequences or two.

const TILE_ROWS = 32u;
const TILE_COLUMNS = 64u;
const TILE_DEPTH = 128u;
const SUBGROUP_ROWS = 2u;    // subgroups along the rows of a tile
const SUBGROUP_COLUMNS = 4u; // and along its columns
