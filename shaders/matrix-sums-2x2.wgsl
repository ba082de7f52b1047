// Part: matrix-product.wgsl for subgroups with 2 × 2 matrices of sums. Every index is written out: from an array that is indexed
// in a loop which the driver does not unroll, the sums would move to memory (4 × 4 of them: 34 instead of 270 TFLOP/s on an H200).

const ROW_MATRICES = 2u; // of a subgroup
const COLUMN_MATRICES = 2u;

alias Sums = array<array<Result, 2>, 2>;

// Add the products of 16 values of k, from a stage's `k` on, for the subgroup's part of the tile that begins at row and column.
fn multiply_step(k: u32, row: u32, column: u32, sums: ptr<function, Sums>) {
  let left0 = x_matrix(k, row);
  let left1 = x_matrix(k, row + 16u);
  let right0 = w_matrix(k, column);
  (*sums)[0][0] = subgroupMatrixMultiplyAccumulate(left0, right0, (*sums)[0][0]);
  (*sums)[1][0] = subgroupMatrixMultiplyAccumulate(left1, right0, (*sums)[1][0]);
  let right1 = w_matrix(k, column + 16u);
  (*sums)[0][1] = subgroupMatrixMultiplyAccumulate(left0, right1, (*sums)[0][1]);
  (*sums)[1][1] = subgroupMatrixMultiplyAccumulate(left1, right1, (*sums)[1][1]);
}

// Hand the sums on, strip by strip: the kernel's finish_strip takes each from workgroup memory.
fn finish_sums(sums: ptr<function, Sums>, first_row: u32, thread: u32, subgroup: u32) {
  let row = subgroup / SUBGROUP_COLUMNS * 16u;
  let column = subgroup % SUBGROUP_COLUMNS * COLUMN_MATRICES * 16u;
  place_sums((*sums)[0][0], row, column);
  place_sums((*sums)[0][1], row, column + 16u);
  finish_strip(0u, first_row, thread);
  place_sums((*sums)[1][0], row, column);
  place_sums((*sums)[1][1], row, column + 16u);
  finish_strip(1u, first_row, thread);
}
