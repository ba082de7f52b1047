// Part: keys and values stored as halves, beside weights stored in another way; the same as storage-f16.wgsl.

alias Kv4 = vec2u;

const LARGEST_KV_HALF = 65504.0;

// A value past the largest half would be indeterminate, so it saturates. NaN, for which clamp may give a bound, stays NaN; it is
// told by its bits, since drivers take it that no value differs from itself.
fn pack_kv(values: vec4f) -> Kv4 {
  let is_nan = (bitcast<vec4u>(values) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u);
  let v = select(clamp(values, vec4f(-LARGEST_KV_HALF), vec4f(LARGEST_KV_HALF)), values, is_nan);
  return vec2u(pack2x16float(v.xy), pack2x16float(v.zw));
}
