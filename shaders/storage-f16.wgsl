// Part: four neighbouring elements stored as halves, two to a u32, the first in the low bits.
//
// Core WGSL widens and narrows them, so half the bytes need no optional feature; arithmetic stays f32.

alias Packed4 = vec2u;

const SCALED = false;    // stored values are the values
const SCALE_UNIT = 1.0; // read when SCALED

const LARGEST_HALF = 65504.0;

fn unpack4(packed: Packed4) -> vec4f {
  return vec4f(unpack2x16float(packed.x), unpack2x16float(packed.y));
}

// A value past the largest half would be indeterminate, so it saturates. NaN, for which clamp may give a bound, stays NaN; it is
// told by its bits, since drivers take it that no value differs from itself.
fn pack4(values: vec4f) -> Packed4 {
  let is_nan = (bitcast<vec4u>(values) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u);
  let v = select(clamp(values, vec4f(-LARGEST_HALF), vec4f(LARGEST_HALF)), values, is_nan);
  return vec2u(pack2x16float(v.xy), pack2x16float(v.zw));
}
