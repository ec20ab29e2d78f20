// Groups of 32 columns of a q8 or q4 matrix times int8 activations, for lib/lane_rows.wgsl. A
// group's own sum is an integer and exact.
//
// The kernel declares blocks, x: array<vec4<u32>>, the latter in groups as
// lib/activation_group.wgsl writes them, and fn x_scale(quad, info) -> f32, the scale of the group
// whose last quad is `info`.

// Where a matrix lies: first quad, first word of its scales, groups of a row, scales of a row.
struct Block {
  quad: u32,
  scale_word: u32,
  groups: u32,
  scale_stride: u32,
}

fn block_of(quad: u32, rows: u32, groups: u32, scale_stride: u32) -> Block {
  return Block(quad, 4u * (quad + rows * groups * GROUP_QUADS), groups, scale_stride);
}

fn group_scale(block: Block, row: u32, group: u32) -> f32 {
  let half = row * block.scale_stride + group;
  let word = block.scale_word + (half >> 1u);
  let quad = blocks[word >> 2u];
  let pair = select(quad.xy, quad.zw, (word & 2u) != 0u);
  let bits = select(pair.x, pair.y, (word & 1u) != 0u);
  return unpack2x16float(bits >> ((half & 1u) * 16u)).x;
}

fn add_group(
  sums: ptr<function, array<f32, ROWS * X_ROWS>>, block: Block, row: u32, row_step: u32,
  row_last: u32, group: u32, x_quads: array<u32, X_ROWS>,
) {
  var weights = array<PackedGroup, ROWS>();
  var scales = array<f32, ROWS>();
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    let weight_row = min(row + r * row_step, row_last);
    weights[r] = packed_group(block.quad + (weight_row * block.groups + group) * GROUP_QUADS);
    scales[r] = group_scale(block, weight_row, group);
  }
  // @unroll
  for (var j = 0u; j < X_ROWS; j++) {
    let at = x_quads[j] + X_QUADS * group;
    let a = x[at];
    let b = x[at + 1u];
    let info = x[at + 2u];
    let scale = x_scale(at, info);
    // @unroll
    for (var r = 0u; r < ROWS; r++) {
      let dot = f32(group_dot(weights[r], a, b, bitcast<i32>(info.y)));
      (*sums)[r * X_ROWS + j] = fma(dot, scales[r] * scale, (*sums)[r * X_ROWS + j]);
    }
  }
}
