// Reductions over the threads of one head, 32 of a workgroup of 128, in one fixed order. The kernel
// calls them in uniform control flow. Loops: 32 turns.

// Threads that share a head.
const LANES: u32 = 32u;
const LOWEST: f32 = -3.4028234e38;

var<workgroup> lane_values: array<f32, 128>;

// The maximum of a value over the threads of each head, at least LOWEST.
fn head_maximum(value: f32, thread: u32) -> f32 {
  workgroupBarrier();
  lane_values[thread] = value;
  workgroupBarrier();
  var result = LOWEST;
  for (var lane = 0u; lane < LANES; lane++) {
    result = max(result, lane_values[thread / LANES * LANES + lane]);
  }
  return result;
}

// The sum of a value over the threads of each head.
fn head_sum(value: f32, thread: u32) -> f32 {
  workgroupBarrier();
  lane_values[thread] = value;
  workgroupBarrier();
  var result = 0.0;
  for (var lane = 0u; lane < LANES; lane++) {
    result += lane_values[thread / LANES * LANES + lane];
  }
  return result;
}
