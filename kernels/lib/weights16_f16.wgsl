// Weights stored as f16, two to a word, the lower half first.
// The kernel declares `var<storage, read> weights: array<vec4<u32>>`.

// Exact on every adapter: unpack2x16float may flush subnormals, integers do not.
fn decode_f16(words: vec2<u32>) -> vec4<f32> {
  let bits = vec4(words.x & 0xffffu, words.x >> 16u, words.y & 0xffffu, words.y >> 16u);
  let sign = (bits & vec4(0x8000u)) << vec4(16u);
  let magnitude = bits & vec4(0x7fffu);
  // Moves the exponent's bias from 15 to 127; infinities and NaN go to the top exponent.
  let rebias = select(vec4(0x38000000u), vec4(0x70000000u), magnitude >= vec4(0x7c00u));
  let normal = (magnitude << vec4(13u)) + rebias;
  let subnormal = bitcast<vec4<u32>>(vec4<f32>(magnitude) * 0x1p-24);
  return bitcast<vec4<f32>>(sign | select(normal, subnormal, magnitude < vec4(0x400u)));
}

// Elements [16 segment, 16 segment + 16), unscaled; column i holds elements [4 i, 4 i + 4).
fn weights16(segment: u32) -> mat4x4<f32> {
  let head = weights[2u * segment];
  let tail = weights[2u * segment + 1u];
  return mat4x4<f32>(
    decode_f16(head.xy), decode_f16(head.zw), decode_f16(tail.xy), decode_f16(tail.zw));
}
