// Part: rows that come as f32, rounded to halves on the way to the tensor cores.

alias RowElement = vec4f;

fn x_oct(at: u32) -> vec4u {
  return vec4u(pack4(x[2u * at]), pack4(x[2u * at + 1u]));
}
