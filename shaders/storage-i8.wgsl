// Part: four neighbouring elements stored as signed bytes in a u32, the first in the low bits.
//
// unpack4 gives byte / 127, which lies in [-1, 1]; the value is that times a scale, which the kernel knows: one for each
// output channel, applied once to a finished sum. Core WGSL; arithmetic is f32.

alias Packed4 = u32;

const SCALED = true;

fn unpack4(packed: Packed4) -> vec4f {
  return unpack4x8snorm(packed);
}
