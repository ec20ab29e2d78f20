// The first block for sequences with one row: the residual stream's rows from their tokens, and
// what the first layer reads of them, y = norm residual, in activation groups
// (lib/x_group.wgsl) with the squares of the residual, and as f32.
//   residual[row] = W[tokens[row]], for tokens among the rows of W's part
//
//   tokens      u32 [first_row + row_count]; FEED + r: the best of logit row r of the step before
//   best        [..][256] of key, id: u32, of the step before
//   weights     elements [weight_rows][16 weight_segments], in q8 and q4 with their scales: rows
//               [row_start, + weight_rows) of the matrix
//   scales      f32 [scale_rows][scale_columns] of the whole matrix (fp8 only)
//   norm        f32 [columns], of the norm that follows
//   residual    f32 [first_row + row_count][columns]
//   groups_out  activation groups [row_count][X_QUADS][groups]
//   scaled      f32 [row_count][columns] = y
//
// One workgroup: 8 groups of row first_row + group.y. Loops: none.

struct Params {
  first_row: u32,
  weight_rows: u32,
  row_start: u32,
  columns: u32,
  groups: u32,
  weight_segments: u32,
  even_first: u32,
  rows_per_scale: u32,
  columns_per_scale: u32,
  scale_rows: u32,
  scale_columns: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
const FEED: u32 = 0x80000000u;

@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read> norm: array<f32>;
@group(0) @binding(5) var<storage, read_write> residual: array<f32>;
@group(0) @binding(6) var<storage, read_write> groups_out: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read_write> scaled: array<f32>;
@group(0) @binding(8) var<storage, read> best: array<vec2<u32>>;

var<workgroup> embedded: array<f32, 256>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  var token = tokens[params.first_row + group.y];
  if (token >= FEED) {
    token = best[(token - FEED) * 256u].y;
  }
  if (token < params.row_start || token - params.row_start >= params.weight_rows) {
    return;
  }
  let segment = 16u * group.x + thread;
  if (thread < 16u && 16u * segment < params.columns) {
    let stored = weights16((token - params.row_start) * params.weight_segments + segment);
    let values = scaled16(stored, 0u, token, segment);
    // @unroll
    for (var i = 0u; i < 16u; i++) {
      embedded[16u * thread + i] = values[i / 4u][i % 4u];
    }
  }
  workgroupBarrier();
  let column = group.x * 256u + thread;
  var value = 0.0;
  var y = 0.0;
  if (column < params.columns) {
    value = embedded[thread];
    residual[(params.first_row + group.y) * params.columns + column] = value;
    y = value * norm[column];
    scaled[group.y * params.columns + column] = y;
  }
  let place = group_place(group.y, column / 32u, params.groups);
  store_group(thread, column / 32u < params.groups, y, value * value, place,
    params.even_first != 0u);
}
