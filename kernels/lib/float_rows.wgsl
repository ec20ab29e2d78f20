// One row of float weights times X_ROWS rows of f32 activations, by 32 lanes: lane l adds the
// segments of 16 columns l, l + 32, ... The kernel declares scaled: array<vec4<f32>> (columns a
// multiple of 16) and the weights that lib/weights16_*.wgsl reads.

// ceil(segments / 32): without a loop, all loads are under way together.
const SEGMENT_TURNS: u32 = 1u;

fn float_lane_sums(
  segment_start: u32, segments: u32, x_quads: array<u32, X_ROWS>, lane: u32,
) -> array<f32, X_ROWS> {
  var sums = array<f32, X_ROWS>();
  // @unroll
  for (var t = 0u; t < SEGMENT_TURNS; t++) {
    let segment = lane + 32u * t;
    if (segment < segments) {
      let w = weights16(segment_start + segment);
      // @unroll
      for (var j = 0u; j < X_ROWS; j++) {
        let at = x_quads[j] + 4u * segment;
        sums[j] += (dot(w[0], scaled[at]) + dot(w[1], scaled[at + 1u])) +
          (dot(w[2], scaled[at + 2u]) + dot(w[3], scaled[at + 3u]));
      }
    }
  }
  return sums;
}
