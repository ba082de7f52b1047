// Part: results that are stored as halves, for a product that would round them anyway.

alias ResultQuad = vec2u;

fn result_of(quad: vec4f) -> ResultQuad {
  return pack4(quad);
}
