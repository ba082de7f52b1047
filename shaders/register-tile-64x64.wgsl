// Part: tiles where larger ones would be too few: a thread computes 8 rows × 4 columns.

const TILE_ROWS = 64u;
const TILE_COLUMNS = 64u;
const TILE_DEPTH = 8u;
const ROW_THREADS = 8u;     // threads along the rows of a tile
const COLUMN_THREADS = 16u; // and along its columns
