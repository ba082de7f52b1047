// Part: tiles where there are very many: a thread computes 16 rows × 8 columns.

const TILE_ROWS = 128u;
const TILE_COLUMNS = 128u;
const TILE_DEPTH = 8u;
const ROW_THREADS = 8u;     // threads along the rows of a tile
const COLUMN_THREADS = 16u; // and along its columns
