// Weights of q4: a group of 32 columns is one quad of words, two columns a byte, each q + 8.

const GROUP_QUADS: u32 = 1u;
// Quads that one load brings into the tile.
const LOAD_QUADS: u32 = 2u;

// Half `part` of a group, int8 in the order of quantised activations: per 8 columns the even ones,
// then the odd ones.
fn unpacked(words: vec4<u32>, part: u32) -> vec4<u32> {
  let pair = select(words.xy, words.zw, part == 1u);
  let nibbles = vec4(pair.x, pair.x >> 4u, pair.y, pair.y >> 4u) & vec4(0x0f0f0f0fu);
  // n - 8 in each byte: with the top bit set nothing is borrowed from the next byte.
  return ((nibbles | vec4(0x80808080u)) - vec4(0x08080808u)) ^ vec4(0x80808080u);
}
