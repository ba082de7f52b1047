// Part: four neighbouring elements stored as f32.

alias Packed4 = vec4f;

const SCALED = false;    // stored values are the values
const SCALE_UNIT = 1.0; // read when SCALED

fn unpack4(packed: Packed4) -> vec4f {
  return packed;
}

fn pack4(values: vec4f) -> Packed4 {
  return values;
}
