// Part: tiles for very many rows and columns: each value that is loaded serves 128 or 256 products.

const TILE_ROWS = 128u;
const TILE_COLUMNS = 256u;
const TILE_DEPTH = 48u;
const SUBGROUP_ROWS = 2u;    // subgroups along the rows of a tile
const SUBGROUP_COLUMNS = 4u; // and along its columns

// The products of a stage, one after the other: a loop over them takes a fifth longer.
fn multiply_stage(row: u32, column: u32, sums: ptr<function, Sums>) {
  multiply_step(0u, row, column, sums);
  multiply_step(16u, row, column, sums);
  multiply_step(32u, row, column, sums);
}
