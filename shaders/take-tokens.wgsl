// Token ids of a step, some of which only the GPU knows yet:  y[t] = sources[t] is NONE ? ids[t] : tokens[sources[t]]
//
// One thread makes one id. It lets a step be submitted before the host has read the tokens of the one before. A token that could
// not be chosen (NONE) becomes token 0, so that what was submitted may go on; the host hears of it later.
//
//   dispatch  [ceil(count / 64)]
//   ids       [count]  u32, what the host knows
//   sources   [count]  u32, index into `tokens`, or NONE
//   tokens    u32, what the sampler chose
//   y         [count]  u32

const WORKGROUP_SIZE = 64u;
const NONE = 0xffffffffu;

struct Params { count: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> sources: array<u32>;
@group(0) @binding(3) var<storage, read> tokens: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let t = id.x;
  if (t >= params.count) {
    return;
  }
  let source = sources[t];
  var token = ids[t];
  if (source != NONE) {
    token = tokens[source];
  }
  y[t] = select(token, 0u, token == NONE);
}
