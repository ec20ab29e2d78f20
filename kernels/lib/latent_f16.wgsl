// Latents stored as f16: four to an element of the cache, the lower half of a word first. Integer
// operations, because pack2x16float and unpack2x16float may flush subnormals and round freely.
alias latent_quad = vec2<u32>;

// Nearest f16, ties to even; 65520 and above become infinity; NaN stays NaN.
fn encode_f16(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  let sign = (bits >> 16u) & 0x8000u;
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return sign | 0x7e00u;
  }
  if (magnitude >= 0x477ff000u) {
    return sign | 0x7c00u;
  }
  if (magnitude < 0x38800000u) {
    // Below 2^-14: adding 0.5 leaves the value in units of 2^-24 in the low bits, rounded.
    return sign | (bitcast<u32>(bitcast<f32>(magnitude) + 0.5) - 0x3f000000u);
  }
  let rounded = magnitude + 0xfffu + ((magnitude >> 13u) & 1u);
  return sign | ((rounded - 0x38000000u) >> 13u);
}

fn encode_latent(values: vec4<f32>) -> latent_quad {
  return vec2(
    encode_f16(values.x) | (encode_f16(values.y) << 16u),
    encode_f16(values.z) | (encode_f16(values.w) << 16u));
}

fn decode_latent(quad: latent_quad) -> vec4<f32> {
  let words = quad.xxyy;
  let sign = (words << vec4(16u, 0u, 16u, 0u)) & vec4(0x80000000u);
  let magnitude = ((words << vec4(13u, 0u, 13u, 0u)) >> vec4(0u, 3u, 0u, 3u)) & vec4(0x0fffe000u);
  // Moves the exponent's bias from 15 to 127; infinities and NaN go to the top exponent.
  let rebias = select(vec4(0x38000000u), vec4(0x70000000u), magnitude >= vec4(0x0f800000u));
  // With 2^-14 as its exponent a subnormal is 2^-14 too large, and both are normal in f32.
  let raised = bitcast<vec4<f32>>(magnitude + vec4(0x38800000u)) - vec4(0x1p-14);
  let subnormal = bitcast<vec4<u32>>(raised);
  let value = select(magnitude + rebias, subnormal, magnitude < vec4(0x00800000u));
  return bitcast<vec4<f32>>(sign | value);
}

// Not 0 where a value of the quad has the exponent 0 or 31: zero, subnormal, infinite or NaN.
fn rare_latent(quad: latent_quad) -> u32 {
  // The exponent plus 1, halved: 0 for these two alone. Carries and borrows leave only halves that
  // have been found.
  let raised = (quad + vec2(0x04000400u)) & vec2(0x78007800u);
  let borrows = (raised - vec2(0x08000800u)) & vec2(0x80008000u);
  return borrows.x | borrows.y;
}

// decode_latent where rare_latent is 0, in half the operations.
fn decode_plain_latent(quad: latent_quad) -> vec4<f32> {
  let halves = bitcast<vec4<i32>>(quad.xxyy << vec4(16u, 0u, 16u, 0u));
  let placed = bitcast<vec4<u32>>(halves >> vec4(3u)) & vec4(0x8fffe000u);
  return bitcast<vec4<f32>>(placed) * 0x1p112;
}
