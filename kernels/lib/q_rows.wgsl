// Products of rows of a q8 or q4 matrix with one row of int8 activations, by LANES threads a row.
//
// Order of every sum: lane l adds the groups l, l + LANES, ... one after the other; the lanes are
// added in order. A group's own sum is an integer and exact. So a row has the same bits in any
// kernel that has as many lanes.
//
// The kernel declares blocks, x: array<vec4<u32>>, the latter in groups of three quads
// (lib/activation_group.wgsl), and fn x_scale(quad, info) -> f32, the scale of the group whose
// third quad is `info`. Loops: LOOPED / CHUNK turns. The constants are set by the host.

const LANES: u32 = 8u;
// Groups that every lane takes: LOOPED of them CHUNK at a time, whose loads are under way together
// (more would take registers from other workgroups), then TAIL without a loop. REST is 1 where the
// first lanes take one more.
const LOOPED: u32 = 0u;
const CHUNK: u32 = 1u;
const TAIL: u32 = 1u;
const REST: u32 = 0u;
// Rows of weights that one thread takes.
const ROWS: u32 = 1u;

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
  sums: ptr<function, array<f32, ROWS>>, block: Block, row: u32, row_step: u32, row_last: u32,
  group: u32, x_quad: u32,
) {
  let at = x_quad + 3u * group;
  let a = x[at];
  let b = x[at + 1u];
  let info = x[at + 2u];
  let scale = x_scale(at, info);
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    let weight_row = min(row + r * row_step, row_last);
    let w = packed_group(block.quad + (weight_row * block.groups + group) * GROUP_QUADS);
    let dot = group_dot(w, a, b, bitcast<i32>(info.y));
    (*sums)[r] = fma(f32(dot), group_scale(block, weight_row, group) * scale, (*sums)[r]);
  }
}

// A lane's sums for rows row, row + row_step, ... (none beyond row_last), x from quad x_quad on.
fn lane_products(
  block: Block, row: u32, row_step: u32, row_last: u32, lane: u32, x_quad: u32,
) -> array<f32, ROWS> {
  var sums = array<f32, ROWS>();
  for (var first = lane; first < LOOPED * LANES; first += CHUNK * LANES) {
    // @unroll
    for (var i = 0u; i < CHUNK; i++) {
      add_group(&sums, block, row, row_step, row_last, first + i * LANES, x_quad);
    }
  }
  // @unroll
  for (var i = 0u; i < TAIL; i++) {
    add_group(&sums, block, row, row_step, row_last, lane + (LOOPED + i) * LANES, x_quad);
  }
  // @unroll
  for (var i = 0u; i < REST; i++) {
    if (lane + (LOOPED + TAIL) * LANES < block.groups) {
      add_group(&sums, block, row, row_step, row_last, lane + (LOOPED + TAIL) * LANES, x_quad);
    }
  }
  return sums;
}
