// Weights of q8: a group of 32 columns is 2 quads of words, a byte a column.

const GROUP_QUADS: u32 = 2u;
// Quads that one load brings into the tile.
const LOAD_QUADS: u32 = 1u;

// Words in the order of quantised activations: per 8 columns the even ones, then the odd ones.
fn unpacked(words: vec4<u32>, part: u32) -> vec4<u32> {
  let low = words.xz;
  let high = words.yw;
  let even = (low & vec2(0xffu)) | ((low >> vec2(8u)) & vec2(0xff00u))
    | ((high & vec2(0xffu)) << vec2(16u)) | ((high << vec2(8u)) & vec2(0xff000000u));
  let odd = ((low >> vec2(8u)) & vec2(0xffu)) | ((low >> vec2(16u)) & vec2(0xff00u))
    | ((high << vec2(8u)) & vec2(0xff0000u)) | (high & vec2(0xff000000u));
  return vec4(even.x, odd.x, even.y, odd.y);
}
