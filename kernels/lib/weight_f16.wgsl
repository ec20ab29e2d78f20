// Weights stored as f16, two to a word, the lower half first.
// The kernel declares `var<storage, read> weights: array<u32>`.

// Exact on every adapter: unpack2x16float may flush subnormals, integers do not.
fn decode_f16(bits: vec4<u32>) -> vec4<f32> {
  let sign = (bits & vec4(0x8000u)) << vec4(16u);
  let magnitude = bits & vec4(0x7fffu);
  // Moves the exponent's bias from 15 to 127; infinities and NaN go to the top exponent.
  let rebias = select(vec4(0x38000000u), vec4(0x70000000u), magnitude >= vec4(0x7c00u));
  let normal = (magnitude << vec4(13u)) + rebias;
  let subnormal = bitcast<vec4<u32>>(vec4<f32>(magnitude) * 0x1p-24);
  return bitcast<vec4<f32>>(sign | select(normal, subnormal, magnitude < vec4(0x400u)));
}

// Elements [index, index + 4), unscaled; index is a multiple of 4.
fn weight4(index: u32) -> vec4<f32> {
  let low = weights[index / 2u];
  let high = weights[index / 2u + 1u];
  return decode_f16(vec4(low & 0xffffu, low >> 16u, high & 0xffffu, high >> 16u));
}
