// Part: tiles for very many rows and columns: each value that is loaded serves 128 or 256 products.

const TILE_ROWS = 128u;
const TILE_COLUMNS = 256u;
const TILE_DEPTH = 48u;
const SUBGROUP_ROWS = 2u;    // subgroups along the rows of a tile
const SUBGROUP_COLUMNS = 4u; // and along its columns
