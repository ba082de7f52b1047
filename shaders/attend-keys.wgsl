// Part: keys as attention reads them, a quad a load.

alias Keys = Packed4;

const KEY_QUADS = 1u; // quads of a load

// Add the products of a load of keys to those of the quads before it.
fn add_keys(keys: Keys, quad: u32, products: vec4f) -> vec4f {
  return fma(query[quad], unpack4(keys), products);
}
