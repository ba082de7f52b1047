// Part: matrix-product.wgsl for subgroups with 4 × 4 matrices of sums. Every index is written out: from an array that is indexed
// in a loop which the driver does not unroll, the sums would move to memory (4 × 4 of them: 34 instead of 270 TFLOP/s on an H200).

const ROW_MATRICES = 4u; // of a subgroup
const COLUMN_MATRICES = 4u;

alias Sums = array<array<Result, 4>, 4>;

// Add the products of 16 values of k, from a stage's `k` on, for the subgroup's part of the tile that begins at row and column.
fn multiply_step(k: u32, row: u32, column: u32, sums: ptr<function, Sums>) {
  let left0 = x_matrix(k, row);
  let left1 = x_matrix(k, row + 16u);
  let left2 = x_matrix(k, row + 32u);
  let left3 = x_matrix(k, row + 48u);
  let right0 = w_matrix(k, column);
  (*sums)[0][0] = subgroupMatrixMultiplyAccumulate(left0, right0, (*sums)[0][0]);
  (*sums)[1][0] = subgroupMatrixMultiplyAccumulate(left1, right0, (*sums)[1][0]);
  (*sums)[2][0] = subgroupMatrixMultiplyAccumulate(left2, right0, (*sums)[2][0]);
  (*sums)[3][0] = subgroupMatrixMultiplyAccumulate(left3, right0, (*sums)[3][0]);
  let right1 = w_matrix(k, column + 16u);
  (*sums)[0][1] = subgroupMatrixMultiplyAccumulate(left0, right1, (*sums)[0][1]);
  (*sums)[1][1] = subgroupMatrixMultiplyAccumulate(left1, right1, (*sums)[1][1]);
  (*sums)[2][1] = subgroupMatrixMultiplyAccumulate(left2, right1, (*sums)[2][1]);
  (*sums)[3][1] = subgroupMatrixMultiplyAccumulate(left3, right1, (*sums)[3][1]);
  let right2 = w_matrix(k, column + 32u);
  (*sums)[0][2] = subgroupMatrixMultiplyAccumulate(left0, right2, (*sums)[0][2]);
  (*sums)[1][2] = subgroupMatrixMultiplyAccumulate(left1, right2, (*sums)[1][2]);
  (*sums)[2][2] = subgroupMatrixMultiplyAccumulate(left2, right2, (*sums)[2][2]);
  (*sums)[3][2] = subgroupMatrixMultiplyAccumulate(left3, right2, (*sums)[3][2]);
  let right3 = w_matrix(k, column + 48u);
  (*sums)[0][3] = subgroupMatrixMultiplyAccumulate(left0, right3, (*sums)[0][3]);
  (*sums)[1][3] = subgroupMatrixMultiplyAccumulate(left1, right3, (*sums)[1][3]);
  (*sums)[2][3] = subgroupMatrixMultiplyAccumulate(left2, right3, (*sums)[2][3]);
  (*sums)[3][3] = subgroupMatrixMultiplyAccumulate(left3, right3, (*sums)[3][3]);
}

// Hand the sums on, strip by strip: the kernel's finish_strip takes each from workgroup memory.
fn finish_sums(sums: ptr<function, Sums>, first_row: u32, thread: u32, subgroup: u32) {
  let row = subgroup / SUBGROUP_COLUMNS * 16u;
  let column = subgroup % SUBGROUP_COLUMNS * COLUMN_MATRICES * 16u;
  place_sums((*sums)[0][0], row, column);
  place_sums((*sums)[0][1], row, column + 16u);
  place_sums((*sums)[0][2], row, column + 32u);
  place_sums((*sums)[0][3], row, column + 48u);
  finish_strip(0u, first_row, thread);
  place_sums((*sums)[1][0], row, column);
  place_sums((*sums)[1][1], row, column + 16u);
  place_sums((*sums)[1][2], row, column + 32u);
  place_sums((*sums)[1][3], row, column + 48u);
  finish_strip(1u, first_row, thread);
  place_sums((*sums)[2][0], row, column);
  place_sums((*sums)[2][1], row, column + 16u);
  place_sums((*sums)[2][2], row, column + 32u);
  place_sums((*sums)[2][3], row, column + 48u);
  finish_strip(2u, first_row, thread);
  place_sums((*sums)[3][0], row, column);
  place_sums((*sums)[3][1], row, column + 16u);
  place_sums((*sums)[3][2], row, column + 32u);
  place_sums((*sums)[3][3], row, column + 48u);
  finish_strip(3u, first_row, thread);
}
