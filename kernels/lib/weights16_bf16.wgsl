// Weights stored as bf16, the upper half of an f32, two to a word, the lower half first.
// The kernel declares `var<storage, read> weights: array<vec4<u32>>`.

fn decode_bf16(words: vec2<u32>) -> vec4<f32> {
  let low = words << vec2(16u);
  let high = words & vec2(0xffff0000u);
  return bitcast<vec4<f32>>(vec4(low.x, high.x, low.y, high.y));
}

// Elements [16 segment, 16 segment + 16), unscaled; column i holds elements [4 i, 4 i + 4).
fn weights16(segment: u32) -> mat4x4<f32> {
  let head = weights[2u * segment];
  let tail = weights[2u * segment + 1u];
  return mat4x4<f32>(
    decode_bf16(head.xy), decode_bf16(head.zw), decode_bf16(tail.xy), decode_bf16(tail.zw));
}
