// Part: tiles for few rows: many small workgroups fill a GPU where a batch has no more than a few hundred rows.

const TILE_ROWS = 32u;
const TILE_COLUMNS = 32u;
const TILE_DEPTH = 64u;
const SUBGROUP_ROWS = 2u;    // subgroups along the rows of a tile
const SUBGROUP_COLUMNS = 2u; // and along its columns
