// Part: rows that come as halves. They were rounded when they were stored, so the bits of a product are those of matrix-x-f32.wgsl,
// and half the bytes are loaded.

alias RowQuad = vec2u;

fn halves_of(quad: RowQuad) -> Packed4 {
  return quad;
}
