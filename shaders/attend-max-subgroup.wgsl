enable subgroups;
// Part: attend-max.wgsl for GPUs with subgroups: one atomic operation a subgroup, of any size.

fn raise_largest(score: f32) {
  let key = subgroupMax(ordered(score));
  if (subgroupElect()) {
    atomicMax(&largest_key, key);
  }
}
