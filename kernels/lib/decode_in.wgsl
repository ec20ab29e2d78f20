// What the first dispatch of a mixer computes for one row of a step beside lib/matrix_row.wgsl,
// which comes before: rows of float weights times the normalised residual, 4 a workgroup.
//
// The kernel also declares scaled, weights, Params with segments, and has lib/float_rows.wgsl
// before it.

// The product of float row `first` + thread / 32, whose weights begin at segment `segment_start`
// for row 0; valid for thread % 32 = 0.
fn float_row(thread: u32, row: u32, weight_row: u32, segment_start: u32) -> f32 {
  let x_quad = row * params.groups * X_QUADS;
  let lane = thread % 32u;
  lane_sums[thread] = float_lane_sum(
    segment_start + weight_row * params.segments, params.segments, row * params.columns / 4u, lane);
  gather_squares(thread, x_quad, params.groups);
  workgroupBarrier();
  var total = 0.0;
  if (lane == 0u) {
    // @unroll
    for (var l = 0u; l < 32u; l++) {
      total += lane_sums[thread + l];
    }
    total *= row_factor(params.columns, params.epsilon);
  }
  return total;
}
