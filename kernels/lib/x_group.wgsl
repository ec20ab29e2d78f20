// Where groups of 32 activations lie: X_QUADS quads each, of which the last tells of the group and
// has the sum of the squares that came along (f32) as its third word. lib/activation_group.wgsl
// (int8) and lib/float_group.wgsl say what the others hold. The constant is set by the host.

const X_QUADS: u32 = 3u;
