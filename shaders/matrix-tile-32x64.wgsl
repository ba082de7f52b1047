// Part: tiles for a step of a hundred sequences or two.

const TILE_ROWS = 32u;
const TILE_COLUMNS = 64u;
const TILE_DEPTH = 128u;
const SUBGROUP_ROWS = 2u;    // subgroups along the rows of a tile
const SUBGROUP_COLUMNS = 4u; // and along its columns

// The products of a stage, one after the other: a loop over them takes a fifth longer.
fn multiply_stage(row: u32, column: u32, sums: ptr<function, Sums>) {
  multiply_step(0u, row, column, sums);
  multiply_step(16u, row, column, sums);
  multiply_step(32u, row, column, sums);
  multiply_step(48u, row, column, sums);
  multiply_step(64u, row, column, sums);
  multiply_step(80u, row, column, sums);
  multiply_step(96u, row, column, sums);
  multiply_step(112u, row, column, sums);
}
