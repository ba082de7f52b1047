// Part: tiles for the fewest rows: many small workgroups, and steps so deep that few of them wait for loads.

const TILE_ROWS = 32u;
const TILE_COLUMNS = 32u;
const TILE_DEPTH = 128u;
const SUBGROUP_ROWS = 2u;    // subgroups along the rows of a tile
const SUBGROUP_COLUMNS = 2u; // and along its columns
