// y[row] = W[tokens[row]], for tokens among the rows of W's part.
//
//   tokens   u32 [row_count]
//   weights  elements [weight_rows][16 weight_segments], in q8 and q4 with their scales: rows
//            [row_start, + weight_rows) of the matrix
//   scales   f32 [scale_rows][scale_columns] of the whole matrix (fp8 only)
//   y        f32 [row_count][columns]
//
// One thread: 16 columns of one row. Loops: 16 turns.

struct Params {
  row_count: u32,
  weight_rows: u32,
  row_start: u32,
  columns: u32,
  segments: u32,
  weight_segments: u32,
  rows_per_scale: u32,
  columns_per_scale: u32,
  scale_rows: u32,
  scale_columns: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

const THREADS: u32 = 64u;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = (group.y * groups.x + group.x) * THREADS + thread;
  let row = index / params.segments;
  let segment = index % params.segments;
  if (row >= params.row_count) {
    return;
  }
  let token = tokens[row];
  if (token < params.row_start || token - params.row_start >= params.weight_rows) {
    return;
  }
  let stored = weights16((token - params.row_start) * params.weight_segments + segment);
  let values = scaled16(stored, 0u, token, segment);
  // @unroll
  for (var i = 0u; i < 16u; i++) {
    let column = 16u * segment + i;
    if (column < params.columns) {
      y[row * params.columns + column] = values[i / 4u][i % 4u];
    }
  }
}
