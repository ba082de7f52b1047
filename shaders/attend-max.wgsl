// Part: raises a workgroup's largest score to that of a thread. Every thread calls.

fn raise_largest(score: f32) {
  atomicMax(&largest_key, ordered(score));
}
