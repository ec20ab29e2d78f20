// Rows of the residual stream as the fused kernels take them: y = weight residual, in activation
// groups (lib/x_group.wgsl) with the squares of the residual, and y itself. The norm's
// factor is the same for a whole row, so that those who read y multiply by it in the end.
//
//   rows        u32 [row_count]: rows of the residual
//   residual    f32 [..][columns]
//   weight      f32 [columns], of the norm that follows
//   groups_out  activation groups [row_count][X_QUADS][groups]
//   scaled      f32 [row_count][columns] = y
//
// One workgroup: 8 groups of one row. Loops: none.

struct Params {
  columns: u32,
  groups: u32,
  even_first: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> rows: array<u32>;
@group(0) @binding(2) var<storage, read> residual: array<f32>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read_write> groups_out: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> scaled: array<f32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = rows[group.y];
  let column = group.x * 256u + thread;
  var value = 0.0;
  var y = 0.0;
  if (column < params.columns) {
    value = residual[row * params.columns + column];
    y = value * weight[column];
    scaled[group.y * params.columns + column] = y;
  }
  let place = group_place(group.y, column / 32u, params.groups);
  store_group(thread, column / 32u < params.groups, y, value * value, place,
    params.even_first != 0u);
}
