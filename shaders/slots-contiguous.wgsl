// Part: where a position of a sequence lies in a contiguous cache: its strip's first slot, and on from there.
//
// The kernel binds `slot_table` [S] u32, the first slot of each strip.

fn slot_of(sequence: u32, position: u32) -> u32 {
  return slot_table[sequence] + position;
}
