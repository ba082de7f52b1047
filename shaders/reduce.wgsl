// Part: the threads of a workgroup agree on a sum or a maximum.
//
// A tree in workgroup memory: in each round the lower half adds what the upper half holds. The order is fixed, so the
// same input gives the same bits. Every thread of the workgroup must call, and every thread gets the result.

const WORKGROUP_SIZE = 64u;

var<workgroup> reduce_slots: array<f32, WORKGROUP_SIZE>;

fn reduce_sum(thread: u32, value: f32) -> f32 {
  reduce_slots[thread] = value;
  workgroupBarrier(); // every slot is written
  for (var half = WORKGROUP_SIZE / 2u; half > 0u; half /= 2u) {
    if (thread < half) {
      reduce_slots[thread] += reduce_slots[thread + half];
    }
    workgroupBarrier(); // this round's sums, before the next round reads them
  }
  let result = reduce_slots[0];
  workgroupBarrier(); // all have read the result, before the next call writes its slots
  return result;
}

fn reduce_max(thread: u32, value: f32) -> f32 {
  reduce_slots[thread] = value;
  workgroupBarrier(); // every slot is written
  for (var half = WORKGROUP_SIZE / 2u; half > 0u; half /= 2u) {
    if (thread < half) {
      reduce_slots[thread] = max(reduce_slots[thread], reduce_slots[thread + half]);
    }
    workgroupBarrier(); // this round's maxima, before the next round reads them
  }
  let result = reduce_slots[0];
  workgroupBarrier(); // all have read the result, before the next call writes its slots
  return result;
}
