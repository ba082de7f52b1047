// Part: tiles for a prompt: two subgroups with 64 × 64 sums each, which load least from workgroup memory for what they multiply.

const TILE_ROWS = 64u;
const TILE_COLUMNS = 128u;
const TILE_DEPTH = 32u;
const SUBGROUP_ROWS = 1u;    // subgroups along the rows of a tile
const SUBGROUP_COLUMNS = 2u; // and along its columns

// The products of a stage, one after the other: a loop over them takes a fifth longer.
fn multiply_stage(row: u32, column: u32, sums: ptr<function, Sums>) {
  multiply_step(0u, row, column, sums);
  multiply_step(16u, row, column, sums);
}
