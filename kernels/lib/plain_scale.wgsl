// The scale of an activation group for lib/lane_rows.wgsl, where it is the one that is stored.

fn x_scale(quad: u32, info: vec4<u32>) -> f32 {
  return bitcast<f32>(info.x);
}
