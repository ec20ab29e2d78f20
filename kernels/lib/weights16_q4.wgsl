// Weights stored as 4 bits, q + 8, eight to a word, the lowest first.
// The kernel declares `var<storage, read> weights: array<vec4<u32>>`.

// Bytes of 16 elements.
const SEGMENT_BYTES: u32 = 8u;

fn decode_int4(word: u32) -> vec4<f32> {
  let nibbles = vec4(word, word >> 4u, word >> 8u, word >> 12u) & vec4(15u);
  return vec4<f32>(vec4<i32>(nibbles) - vec4(8));
}

// Elements [16 segment, 16 segment + 16), unscaled; column i holds elements [4 i, 4 i + 4).
fn weights16(segment: u32) -> mat4x4<f32> {
  let words = weights[segment / 2u];
  let pair = select(words.xy, words.zw, segment % 2u == 1u);
  return mat4x4<f32>(
    decode_int4(pair.x), decode_int4(pair.x >> 16u),
    decode_int4(pair.y), decode_int4(pair.y >> 16u));
}
