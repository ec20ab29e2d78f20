// What the first dispatch of a mixer computes for one row of a step: rows of a q8 or q4 matrix and
// rows of float weights, both times the normalised residual.
//
// A workgroup of 128 threads takes 16 ROWS rows of the first, or 16 of the second (4 at a time).
// The kernel declares x, scaled, blocks, weights, Params with row_count, groups, columns, epsilon,
// block_rows, scale_stride, block_tiles, segments, and has lib/q_rows.wgsl, lib/float_rows.wgsl and
// lib/row_norm.wgsl before it.

const SLOTS: u32 = 128u / LANES;
const TILE: u32 = SLOTS * ROWS;

var<workgroup> lane_sums: array<f32, 128u * ROWS>;

fn x_scale(quad: u32, info: vec4<u32>) -> f32 {
  return bitcast<f32>(info.x);
}

// The product of row tile TILE + thread, valid for thread < TILE.
fn integer_row(thread: u32, row: u32, tile: u32) -> f32 {
  let x_quad = row * params.groups * 3u;
  let block = block_of(0u, params.block_rows, params.groups, params.scale_stride);
  let lane = thread % LANES;
  let slot = thread / LANES;
  let sums = lane_products(
    block, tile * TILE + slot, SLOTS, params.block_rows - 1u, lane, x_quad);
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    lane_sums[(r * SLOTS + slot) * LANES + lane] = sums[r];
  }
  gather_squares(thread, x_quad, params.groups);
  workgroupBarrier();
  var total = 0.0;
  if (thread < TILE) {
    // @unroll
    for (var l = 0u; l < LANES; l++) {
      total += lane_sums[thread * LANES + l];
    }
    total *= row_factor(params.columns, params.epsilon);
  }
  return total;
}

// The product of float row `first` + thread / 32, whose weights begin at segment `segment_start`
// for row 0; valid for thread % 32 = 0.
fn float_row(thread: u32, row: u32, weight_row: u32, segment_start: u32) -> f32 {
  let x_quad = row * params.groups * 3u;
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
