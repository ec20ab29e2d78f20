// A group of 32 weights of q4: four words, the even column of a byte in its low half, each q + 8.
// The kernel declares blocks: array<vec4<u32>>.

const GROUP_QUADS: u32 = 1u;

struct PackedGroup {
  words: vec4<u32>,
}

fn packed_group(quad: u32) -> PackedGroup {
  return PackedGroup(blocks[quad]);
}

// Exact sum over the group of q x, for x in the two quads a, b with the sum x_sum.
fn group_dot(w: PackedGroup, a: vec4<u32>, b: vec4<u32>, x_sum: i32) -> i32 {
  let low = w.words & vec4(0x0f0f0f0fu);
  let high = (w.words >> vec4(4u)) & vec4(0x0f0f0f0fu);
  let even = dot4I8Packed(low.x, a.x) + dot4I8Packed(low.y, a.y) +
    dot4I8Packed(low.z, a.z) + dot4I8Packed(low.w, a.w);
  let odd = dot4I8Packed(high.x, b.x) + dot4I8Packed(high.y, b.y) +
    dot4I8Packed(high.z, b.z) + dot4I8Packed(high.w, b.w);
  return even + odd - 8 * x_sum;
}
