// 1 / sqrt(mean of squares + epsilon) of a row of activation groups, whose last quads hold the
// sums of squares. The kernel declares x: array<vec4<u32>> and has NORM_THREADS threads.

const NORM_THREADS: u32 = 128u;
// ceil(the smaller of NORM_THREADS and the groups of a row / 4)
const NORM_QUADS: u32 = 32u;

var<workgroup> norm_squares: array<vec4<f32>, NORM_THREADS / 4u>;

// Called by all threads before a barrier of the kernel; `row_factor` after it.
fn gather_squares(thread: u32, x_quad: u32, groups: u32) {
  var sum = 0.0;
  for (var group = thread; group < groups; group += NORM_THREADS) {
    sum += bitcast<f32>(x[x_quad + X_QUADS * group + X_QUADS - 1u].z);
  }
  norm_squares[thread / 4u][thread % 4u] = sum;
}

fn row_factor(columns: u32, epsilon: f32) -> f32 {
  var sums = vec4(0.0);
  // @unroll
  for (var i = 0u; i < NORM_QUADS; i++) {
    sums += norm_squares[i];
  }
  let sum = (sums.x + sums.y) + (sums.z + sums.w);
  return 1.0 / sqrt(sum / f32(columns) + epsilon);
}
