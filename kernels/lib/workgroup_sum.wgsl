// Sum over the 128 threads of a workgroup, in one fixed order: the tree t + 64, t + 32, ...

const SUM_THREADS: u32 = 128u;

var<workgroup> sum_terms: array<f32, 128>;

// The sum of `value` over all threads, in every thread. Called in uniform control flow.
fn workgroup_sum(thread: u32, value: f32) -> f32 {
  workgroupBarrier();
  sum_terms[thread] = value;
  workgroupBarrier();
  for (var width = SUM_THREADS / 2u; width > 0u; width /= 2u) {
    if (thread < width) {
      sum_terms[thread] += sum_terms[thread + width];
    }
    workgroupBarrier();
  }
  return sum_terms[0];
}
