// Index of the largest element of each row, the lowest index where several are equal.
//
// One workgroup owns one row. Each thread finds the best of its columns; a tree in workgroup memory finds the best of
// the threads. A NaN is never larger, so it is never chosen; a row of nothing but NaN gives 0.
//
//   dispatch  [rows]
//   x         [rows, cols]  f32, rows padded to `stride`
//   y         [rows]        u32

const WORKGROUP_SIZE = 64u;

struct Params {
  cols: u32,
  stride: u32, // elements from one row to the next
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

const NONE = 0xffffffffu;

var<workgroup> best_value: array<f32, WORKGROUP_SIZE>;
var<workgroup> best_index: array<u32, WORKGROUP_SIZE>;

// Is (value, index) better than (other, other_index)? NONE is worse than anything.
fn better(value: f32, index: u32, other: f32, other_index: u32) -> bool {
  if (index == NONE || other_index == NONE) {
    return index != NONE;
  }
  return value > other || (value == other && index < other_index);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let first = workgroup.x * params.stride;

  // 1. Each thread's best. The columns rise, so an equal value later on does not replace an earlier one.
  var value = 0.0;
  var index = NONE;
  for (var c = thread; c < params.cols; c += WORKGROUP_SIZE) {
    let candidate = x[first + c];
    // By its bits: a compiler may take it that no float is NaN.
    let is_number = (bitcast<u32>(candidate) & 0x7fffffffu) <= 0x7f800000u;
    if (is_number && (index == NONE || candidate > value)) {
      value = candidate;
      index = c;
    }
  }
  best_value[thread] = value;
  best_index[thread] = index;
  workgroupBarrier(); // every thread's best is there

  // 2. The best of all, by a tree of fixed order.
  for (var half = WORKGROUP_SIZE / 2u; half > 0u; half /= 2u) {
    if (thread < half) {
      let other = thread + half;
      if (better(best_value[other], best_index[other], best_value[thread], best_index[thread])) {
        best_value[thread] = best_value[other];
        best_index[thread] = best_index[other];
      }
    }
    workgroupBarrier(); // this round's winners, before the next round reads them
  }
  if (thread == 0u) {
    y[workgroup.x] = select(best_index[0], 0u, best_index[0] == NONE);
  }
}
