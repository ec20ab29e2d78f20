// The two f16 in a word, the lower half first. Exact on every adapter: unpack2x16float may flush
// subnormals, integers do not.
fn f16_pair(word: u32) -> vec2<f32> {
  let bits = vec2(word & 0xffffu, word >> 16u);
  let sign = (bits & vec2(0x8000u)) << vec2(16u);
  let magnitude = bits & vec2(0x7fffu);
  // Moves the exponent's bias from 15 to 127; infinities and NaN go to the top exponent.
  let rebias = select(vec2(0x38000000u), vec2(0x70000000u), magnitude >= vec2(0x7c00u));
  let normal = (magnitude << vec2(13u)) + rebias;
  let subnormal = bitcast<vec2<u32>>(vec2<f32>(magnitude) * 0x1p-24);
  return bitcast<vec2<f32>>(sign | select(normal, subnormal, magnitude < vec2(0x400u)));
}
