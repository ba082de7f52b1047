// Part: four neighbouring elements stored as signed bytes in a u32, the first in the low bits.
//
// unpack4 gives the byte itself, -127 … 127; its value is that times SCALE_UNIT times a scale, which the kernel knows: one
// for each output channel, applied once to a finished sum. Core WGSL; arithmetic is f32.
//
// A byte becomes a float without a conversion, of which a GPU makes few at a time: with its sign bit flipped it is b + 128, and
// put behind the exponent of 2^23 it is 2^23 + b + 128, from which one subtraction, exact, leaves b.

alias Packed4 = u32;

const SCALED = true;
const SCALE_UNIT = 1.0 / 127.0; // a scale is what the byte 127 stands for

const EXPONENT_BITS = 0x4b000000u; // of 2^23
const OFFSET = 8388736.0;          // 2^23 + 128

fn unpack4(packed: Packed4) -> vec4f {
  let flipped = packed ^ 0x80808080u;
  let bytes = vec4u(flipped, flipped >> 8u, flipped >> 16u, flipped >> 24u) & vec4u(0xffu);
  return bitcast<vec4f>(bytes | vec4u(EXPONENT_BITS)) - OFFSET;
}
