// Part: tiles for very many rows or columns: each value that is loaded serves 128 products.

const TILE_ROWS = 128u;
const TILE_COLUMNS = 128u;
const SUBGROUP_ROWS = 4u;    // subgroups along the rows of a tile
const SUBGROUP_COLUMNS = 4u; // and along its columns
const GROUPS = 1u;           // sets of subgroups, each with a chain of its own at a time
