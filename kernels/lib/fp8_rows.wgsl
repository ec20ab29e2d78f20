// Groups of 32 columns of an fp8 matrix times f32 activations, for lib/lane_rows.wgsl: weights as
// they are (e4m3fn, bias 7, no infinities, NaN 0x7f), products and sums in f32.
//
// The kernel declares blocks, x: array<vec4<u32>>, the latter in groups as lib/float_group.wgsl
// writes them, and fn x_scale(quad, info) -> f32, a factor of the group whose last quad is `info`.
// The constants are set by the host (`rowStorage`).

const GROUP_QUADS: u32 = 2u;

// Scales, f32 [matrices][ceil(rows / ROWS_PER_SCALE)][SCALE_COLUMNS], begin at word SCALE_WORD.
const ROWS_PER_SCALE: u32 = 1u;
const GROUPS_PER_SCALE: u32 = 1u;
const SCALE_COLUMNS: u32 = 1u;
const SCALE_WORD: u32 = 0u;

// Where a matrix lies: first quad, first word of its scales, groups of a row.
struct Block {
  quad: u32,
  scale_word: u32,
  groups: u32,
}

// scale_stride: of q8 and q4.
fn block_of(quad: u32, rows: u32, groups: u32, scale_stride: u32) -> Block {
  let matrix = quad / (rows * groups * GROUP_QUADS);
  let scale_rows = (rows + ROWS_PER_SCALE - 1u) / ROWS_PER_SCALE;
  return Block(quad, SCALE_WORD + matrix * scale_rows * SCALE_COLUMNS, groups);
}

fn grid_scale(block: Block, row: u32, group: u32) -> f32 {
  let word = block.scale_word + row / ROWS_PER_SCALE * SCALE_COLUMNS + group / GROUPS_PER_SCALE;
  return bitcast<f32>(blocks[word >> 2u][word & 3u]);
}

// Sum of w x / 256 over the four weights of a word. With its sign and its seven other bits where
// f16 has sign, lower exponent and upper fraction, a weight is 1 / 256 of what it was, subnormal
// ones too. NaN is lost.
fn word_dot(word: u32, x: vec4<u32>) -> f32 {
  let even = unpack2x16float(((word << 8u) & 0x80008000u) | ((word << 7u) & 0x3f803f80u));
  let odd = unpack2x16float((word & 0x80008000u) | ((word >> 1u) & 0x3f803f80u));
  return dot(vec4(even.x, odd.x, even.y, odd.y), bitcast<vec4<f32>>(x));
}

fn quad_dot(
  words: vec4<u32>, x0: vec4<u32>, x1: vec4<u32>, x2: vec4<u32>, x3: vec4<u32>,
) -> f32 {
  return (word_dot(words.x, x0) + word_dot(words.y, x1)) +
    (word_dot(words.z, x2) + word_dot(words.w, x3));
}

// Whether one of the weights is NaN: only there adding 1 to the lower bits turns the sign's. What
// is carried over into the next weight comes from a NaN.
fn has_nan(head: vec4<u32>, tail: vec4<u32>) -> bool {
  let one = vec4(0x01010101u);
  let turned = ((head + one) ^ head) | ((tail + one) ^ tail);
  return ((turned.x | turned.y | turned.z | turned.w) & 0x80808080u) != 0u;
}

// Adds group `group` of ROWS rows of weights and X_ROWS rows of x.
fn add_group(
  sums: ptr<function, array<f32, ROWS * X_ROWS>>, block: Block, rows: WeightRows, group: u32,
  x_quads: array<u32, X_ROWS>,
) {
  var heads = array<vec4<u32>, ROWS>();
  var tails = array<vec4<u32>, ROWS>();
  var scales = array<f32, ROWS>();
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    let row = weight_row(rows, r);
    let quad = block.quad + (row * block.groups + group) * GROUP_QUADS;
    heads[r] = blocks[quad];
    tails[r] = blocks[quad + 1u];
    scales[r] = grid_scale(block, row, group);
  }
  // @unroll
  for (var j = 0u; j < X_ROWS; j++) {
    let at = x_quads[j] + group;
    let x0 = x[at];
    let x1 = x[at + block.groups];
    let x2 = x[at + 2u * block.groups];
    let x3 = x[at + 3u * block.groups];
    let x4 = x[at + 4u * block.groups];
    let x5 = x[at + 5u * block.groups];
    let x6 = x[at + 6u * block.groups];
    let x7 = x[at + 7u * block.groups];
    let info_at = at + 8u * block.groups;
    let factor = 256.0 * x_scale(info_at, x[info_at]);
    // @unroll
    for (var r = 0u; r < ROWS; r++) {
      let dot = quad_dot(heads[r], x0, x1, x2, x3) + quad_dot(tails[r], x4, x5, x6, x7);
      let scale = bitcast<u32>(scales[r] * factor);
      let known = bitcast<f32>(select(scale, 0x7fc00000u, has_nan(heads[r], tails[r])));
      (*sums)[r * X_ROWS + j] = fma(dot, known, (*sums)[r * X_ROWS + j]);
    }
  }
}
