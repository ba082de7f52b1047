// Part: keys and values stored as halves, beside weights stored in another way; the same as storage-f16.wgsl.

alias Kv4 = vec2u;

const LARGEST_KV_HALF = 65504.0;

// A value past the largest half would be indeterminate, so it saturates. clamp may give a bound for NaN, which stays NaN.
fn pack_kv(values: vec4f) -> Kv4 {
  let v = select(clamp(values, vec4f(-LARGEST_KV_HALF), vec4f(LARGEST_KV_HALF)), values, values != values);
  return vec2u(pack2x16float(v.xy), pack2x16float(v.zw));
}
