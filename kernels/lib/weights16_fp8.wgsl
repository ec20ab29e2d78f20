// Weights stored as fp8 e4m3fn (bias 7, no infinities, NaN 0x7f), four to a word, the lowest first.
// The kernel declares `var<storage, read> weights: array<vec4<u32>>`.

fn decode_fp8(word: u32) -> vec4<f32> {
  let bits = vec4(word, word >> 8u, word >> 16u, word >> 24u);
  let sign = (bits & vec4(0x80u)) << vec4(24u);
  let magnitude = bits & vec4(0x7fu);
  // Moves the exponent's bias from 7 to 127.
  let normal = (magnitude << vec4(20u)) + vec4(0x3c000000u);
  let subnormal = bitcast<vec4<u32>>(vec4<f32>(magnitude) * 0x1p-9);
  let finite = select(normal, subnormal, magnitude < vec4(8u));
  return bitcast<vec4<f32>>(sign | select(finite, vec4(0x7fc00000u), magnitude == vec4(0x7fu)));
}

// Elements [16 segment, 16 segment + 16), unscaled; column i holds elements [4 i, 4 i + 4).
fn weights16(segment: u32) -> mat4x4<f32> {
  let words = weights[segment];
  return mat4x4<f32>(
    decode_fp8(words.x), decode_fp8(words.y), decode_fp8(words.z), decode_fp8(words.w));
}
