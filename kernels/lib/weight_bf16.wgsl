// Weights stored as bf16, the upper half of an f32, two to a word, the lower half first.
// The kernel declares `var<storage, read> weights: array<u32>`.

// Elements [index, index + 4), unscaled; index is a multiple of 4.
fn weight4(index: u32) -> vec4<f32> {
  let low = weights[index / 2u];
  let high = weights[index / 2u + 1u];
  return bitcast<vec4<f32>>(
    vec4(low << 16u, low & 0xffff0000u, high << 16u, high & 0xffff0000u));
}
