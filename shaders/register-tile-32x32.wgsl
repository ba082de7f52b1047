// Part: tiles for few rows: a thread computes 2 rows × 4 columns. A step is deep, so that there are few steps to wait in.

const TILE_ROWS = 32u;
const TILE_COLUMNS = 32u;
const TILE_DEPTH = 32u;
const ROW_THREADS = 16u;   // threads along the rows of a tile
const COLUMN_THREADS = 8u; // and along its columns
