// Part: rows that come as halves. They were rounded when they were stored, so the bits of a product are those of matrix-x-f32.wgsl,
// and half the bytes are loaded.

alias RowElement = vec4u;
alias RowOct = vec4u;

fn x_oct(at: u32) -> RowOct {
  return x[at];
}

fn halves_of(oct: RowOct) -> vec4u {
  return oct;
}
