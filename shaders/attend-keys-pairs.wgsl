// Part: attend-keys.wgsl for halves, two quads a load: 16 bytes, the most that a GPU loads at once. Threads that read a row each
// touch as many cache lines with every load, so fewer loads are faster. HEAD_QUADS must be even.

alias Keys = vec4u;

const KEY_QUADS = 2u;

fn add_keys(keys: Keys, quad: u32, products: vec4f) -> vec4f {
  return fma(query[quad + 1u], unpack4(keys.zw), fma(query[quad], unpack4(keys.xy), products));
}
