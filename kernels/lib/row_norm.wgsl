// 1 / sqrt(mean of squares + epsilon) of X_ROWS rows of activation groups, whose last quads hold
// the sums of squares. The kernel declares x: array<vec4<u32>> and has NORM_THREADS threads.

const NORM_THREADS: u32 = 128u;
// ceil(the smaller of NORM_THREADS and the groups of a row / 4)
const NORM_QUADS: u32 = 32u;

// [row of x][quad]
var<workgroup> norm_squares: array<vec4<f32>, X_ROWS * NORM_QUADS>;

// Called by all threads before a barrier of the kernel; `row_factor` after it.
fn gather_squares(thread: u32, x_quads: array<u32, X_ROWS>, groups: u32) {
  // @unroll
  for (var j = 0u; j < X_ROWS; j++) {
    var sum = 0.0;
    for (var group = thread; group < groups; group += NORM_THREADS) {
      sum += bitcast<f32>(x[x_quads[j] + (X_QUADS - 1u) * groups + group].z);
    }
    if (thread < 4u * NORM_QUADS) {
      norm_squares[j * NORM_QUADS + thread / 4u][thread % 4u] = sum;
    }
  }
}

// Of row `j` of the X_ROWS.
fn row_factor(j: u32, columns: u32, epsilon: f32) -> f32 {
  var sums = vec4(0.0);
  // @unroll
  for (var i = 0u; i < NORM_QUADS; i++) {
    sums += norm_squares[j * NORM_QUADS + i];
  }
  let sum = (sums.x + sums.y) + (sums.z + sums.w);
  return 1.0 / sqrt(sum / f32(columns) + epsilon);
}
