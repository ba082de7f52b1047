// Part: rows that come as f32, rounded to halves on the way to the tensor cores.

alias RowElement = vec4f;
alias RowOct = array<vec4f, 2>;

fn x_oct(at: u32) -> RowOct {
  return RowOct(x[2u * at], x[2u * at + 1u]);
}

fn halves_of(oct: RowOct) -> vec4u {
  return vec4u(pack4(oct[0]), pack4(oct[1]));
}
