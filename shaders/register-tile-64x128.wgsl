// Part: tiles where there are enough of them to fill a GPU: a thread computes 8 rows × 8 columns.

const TILE_ROWS = 64u;
const TILE_COLUMNS = 128u;
const TILE_DEPTH = 8u;
const ROW_THREADS = 8u;     // threads along the rows of a tile
const COLUMN_THREADS = 16u; // and along its columns
