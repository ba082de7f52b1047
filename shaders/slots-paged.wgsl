// Part: where a position of a sequence lies in a paged cache: a page from the sequence's page table, and a slot in it.
//
// The kernel binds `slot_table` [S, table_width] u32, the pages of each sequence in order, and its params have
// `table_width` and `page_size` (slots in a page).

fn slot_of(sequence: u32, position: u32) -> u32 {
  let page = slot_table[sequence * params.table_width + position / params.page_size];
  return page * params.page_size + position % params.page_size;
}
