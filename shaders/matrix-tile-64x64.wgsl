// Part: tiles for hundreds of rows: each value that is loaded serves 64 products.

const TILE_ROWS = 64u;
const TILE_COLUMNS = 64u;
const TILE_DEPTH = 64u;
const SUBGROUP_ROWS = 2u;    // subgroups along the rows of a tile
const SUBGROUP_COLUMNS = 2u; // and along its columns

// The products of a stage, one after the other: a loop over them takes a fifth longer.
fn multiply_stage(row: u32, column: u32, sums: ptr<function, Sums>) {
  multiply_step(0u, row, column, sums);
  multiply_step(16u, row, column, sums);
  multiply_step(32u, row, column, sums);
  multiply_step(48u, row, column, sums);
}
