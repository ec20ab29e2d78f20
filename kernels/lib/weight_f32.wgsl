// Weights stored as f32. The kernel declares `var<storage, read> weights: array<u32>`.

// Elements [index, index + 4), unscaled; index is a multiple of 4.
fn weight4(index: u32) -> vec4<f32> {
  return bitcast<vec4<f32>>(
    vec4(weights[index], weights[index + 1u], weights[index + 2u], weights[index + 3u]));
}
