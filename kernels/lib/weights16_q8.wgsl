// Weights stored as signed bytes, four to a word, the lowest first.
// The kernel declares `var<storage, read> weights: array<vec4<u32>>`.

// Bytes of 16 elements.
const SEGMENT_BYTES: u32 = 16u;

fn decode_int8(word: u32) -> vec4<f32> {
  return vec4<f32>(unpack4xI8(word));
}

// Elements [16 segment, 16 segment + 16), unscaled; column i holds elements [4 i, 4 i + 4).
fn weights16(segment: u32) -> mat4x4<f32> {
  let words = weights[segment];
  return mat4x4<f32>(
    decode_int8(words.x), decode_int8(words.y), decode_int8(words.z), decode_int8(words.w));
}
