// Part: floats as integers, so that a maximum can be taken of them and NaN is not lost on the way.
//
// A compiler may take it that no float is NaN, hence the bits. The key of a higher float is higher; both zeros have one key.

const NO_KEY = 0u;                        // of nothing; below every other
const KEY_OF_MINUS_INFINITY = 0x007fffffu;
const KEY_OF_BAD = 0xffffffffu;           // of NaN and Infinity, above every other: nothing can be chosen beside them

// Floats as integers of the same order.
fn ordered(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn from_ordered(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u));
}

fn score_keys(x: vec4f) -> vec4u {
  let given = bitcast<vec4u>(x);
  let bits = select(given, vec4u(0u), given == vec4u(0x80000000u));
  let keys = select(bits | vec4u(0x80000000u), ~bits, (bits & vec4u(0x80000000u)) != vec4u(0u));
  let is_bad = ((bits & vec4u(0x7fffffffu)) >= vec4u(0x7f800000u)) & (bits != vec4u(0xff800000u));
  return select(keys, vec4u(KEY_OF_BAD), is_bad);
}
