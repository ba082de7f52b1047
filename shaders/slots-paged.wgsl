// Part: where a position of a sequence lies in a paged cache: a page from the sequence's page table, and a slot in it.
//
// The kernel binds `slot_table` [S, TABLE_WIDTH] u32, the pages of each sequence in order.

override TABLE_WIDTH: u32 = 1u;
override PAGE_SIZE: u32 = 16u; // slots in a page; a constant, since a division by a variable is slow

fn slot_of(sequence: u32, position: u32) -> u32 {
  let page = slot_table[sequence * TABLE_WIDTH + position / PAGE_SIZE];
  return page * PAGE_SIZE + position % PAGE_SIZE;
}
