// Part: keys and values stored as f32, beside weights stored in another way.

alias Kv4 = vec4f;

fn pack_kv(values: vec4f) -> Kv4 {
  return values;
}
