// Weights stored as f32. The kernel declares `var<storage, read> weights: array<vec4<u32>>`.

// Elements [16 segment, 16 segment + 16), unscaled; column i holds elements [4 i, 4 i + 4).
fn weights16(segment: u32) -> mat4x4<f32> {
  return mat4x4<f32>(
    bitcast<vec4<f32>>(weights[4u * segment]),
    bitcast<vec4<f32>>(weights[4u * segment + 1u]),
    bitcast<vec4<f32>>(weights[4u * segment + 2u]),
    bitcast<vec4<f32>>(weights[4u * segment + 3u]));
}
