// Part: tiles for hundreds of rows: each value that is loaded serves 64 products.

const TILE_ROWS = 64u;
const TILE_COLUMNS = 64u;
const TILE_DEPTH = 64u;
const SUBGROUP_ROWS = 2u;    // subgroups along the rows of a tile
const SUBGROUP_COLUMNS = 2u; // and along its columns
