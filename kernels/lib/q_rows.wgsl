// Groups of 32 columns of a q8 or q4 matrix times int8 activations, for lib/lane_rows.wgsl. A
// group's own sum is an integer and exact.
//
// The kernel declares blocks, x: array<vec4<u32>>, the latter in groups as
// lib/activation_group.wgsl writes them, and fn x_scale(quad, info) -> f32, the scale of the group
// whose last quad is `info`, at `quad`.

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
  let bits = blocks[word >> 2u][word & 3u];
  return unpack2x16float(bits >> ((half & 1u) * 16u)).x;
}

// Adds group `group` of ROWS rows of weights and X_ROWS rows of x.
fn add_group(
  sums: ptr<function, array<f32, ROWS * X_ROWS>>, block: Block, rows: WeightRows, group: u32,
  x_quads: array<u32, X_ROWS>,
) {
  var a = array<vec4<u32>, X_ROWS>();
  var b = array<vec4<u32>, X_ROWS>();
  var x_sums = array<i32, X_ROWS>();
  var x_scales = array<f32, X_ROWS>();
  // @unroll
  for (var j = 0u; j < X_ROWS; j++) {
    let at = x_quads[j] + group;
    a[j] = x[at];
    b[j] = x[at + block.groups];
    let info = x[at + 2u * block.groups];
    x_sums[j] = bitcast<i32>(info.y);
    x_scales[j] = x_scale(at + 2u * block.groups, info);
  }
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    let row = weight_row(rows, r);
    let w = packed_group(block.quad + (row * block.groups + group) * GROUP_QUADS);
    let scale = group_scale(block, row, group);
    // @unroll
    for (var j = 0u; j < X_ROWS; j++) {
      let dot = f32(group_dot(w, a[j], b[j], x_sums[j]));
      (*sums)[r * X_ROWS + j] = fma(dot, scale * x_scales[j], (*sums)[r * X_ROWS + j]);
    }
  }
}
