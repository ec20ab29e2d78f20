// Where groups of 32 activations lie: X_QUADS quads each, of which the last tells of the group and
// has the sum of the squares that came along (f32) as its third word. lib/activation_group.wgsl
// (int8) and lib/float_group.wgsl say what the others hold. A row has all its groups' first quads,
// then all their second ones and so on, [X_QUADS][groups], so that neighbours load neighbours. The
// constant is set by the host.

const X_QUADS: u32 = 3u;

// A group's first quad, and how far apart its quads are.
struct GroupPlace {
  quad: u32,
  stride: u32,
}

// Group `group` of row `row`, where rows have `groups`.
fn group_place(row: u32, group: u32, groups: u32) -> GroupPlace {
  return GroupPlace(row * groups * X_QUADS + group, groups);
}
