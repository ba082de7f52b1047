// Part: rows that come as f32, and are rounded to halves on the way to the tensor cores.

alias RowQuad = vec4f;

fn halves_of(quad: RowQuad) -> Packed4 {
  return pack4(quad);
}
