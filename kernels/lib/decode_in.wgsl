// What the first dispatch of a mixer computes beside lib/matrix_rows.wgsl, which comes before: rows
// of float weights times X_ROWS rows' normalised residual, 4 a workgroup.
//
// The kernel also declares scaled, weights, Params with segments, and has lib/float_rows.wgsl
// before it.

// The product of float row `weight_row`, whose weights begin at segment `segment_start` for row 0,
// with row first + j of x, where j = thread % 32; valid for j < X_ROWS.
fn float_product(thread: u32, first: u32, weight_row: u32, segment_start: u32) -> f32 {
  let lane = thread % 32u;
  var scaled_quads = array<u32, X_ROWS>();
  // @unroll
  for (var j = 0u; j < X_ROWS; j++) {
    scaled_quads[j] = min(first + j, params.row_count - 1u) * params.columns / 4u;
  }
  let sums = float_lane_sums(
    segment_start + weight_row * params.segments, params.segments, scaled_quads, lane);
  // @unroll
  for (var j = 0u; j < X_ROWS; j++) {
    lane_sums[128u * j + thread] = sums[j];
  }
  gather_squares(thread, x_quads_of(first), params.groups);
  workgroupBarrier();
  var total = 0.0;
  if (lane < X_ROWS) {
    // @unroll
    for (var l = 0u; l < 32u; l++) {
      total += lane_sums[128u * lane + thread - lane + l];
    }
    total *= row_factor(lane, params.columns, params.epsilon);
  }
  return total;
}
