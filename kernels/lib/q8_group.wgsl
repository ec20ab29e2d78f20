// A group of 32 weights of q8: eight words of four signed bytes.
// The kernel declares blocks: array<vec4<u32>>.

const GROUP_QUADS: u32 = 2u;

struct PackedGroup {
  head: vec4<u32>,
  tail: vec4<u32>,
}

fn packed_group(quad: u32) -> PackedGroup {
  return PackedGroup(blocks[quad], blocks[quad + 1u]);
}

// Exact sum over the group of q x, for x in the two quads a, b.
fn group_dot(w: PackedGroup, a: vec4<u32>, b: vec4<u32>, x_sum: i32) -> i32 {
  let head = dot4I8Packed(w.head.x, a.x) + dot4I8Packed(w.head.y, a.y) +
    dot4I8Packed(w.head.z, a.z) + dot4I8Packed(w.head.w, a.w);
  let tail = dot4I8Packed(w.tail.x, b.x) + dot4I8Packed(w.tail.y, b.y) +
    dot4I8Packed(w.tail.z, b.z) + dot4I8Packed(w.tail.w, b.w);
  return head + tail;
}
