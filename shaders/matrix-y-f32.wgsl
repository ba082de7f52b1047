// Part: results that are stored as f32.

alias ResultQuad = vec4f;

fn result_of(quad: vec4f) -> ResultQuad {
  return quad;
}
