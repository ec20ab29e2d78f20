// y = W with its scales multiplied in, as f32: the values that lib/matvec_rows.wgsl multiplies by.
//
//   weights  elements [rows][16 segments]
//   scales   f32 [scale_rows][scale_columns] (fp8 only)
//   y        f32 quads [rows][4 segments]
//
// One thread: 16 columns of one row. Loops: none.

struct Params {
  rows: u32,
  segments: u32,
  rows_per_scale: u32,
  columns_per_scale: u32,
  scale_rows: u32,
  scale_columns: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

const THREADS: u32 = 64u;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = (group.y * groups.x + group.x) * THREADS + thread;
  let row = index / params.segments;
  if (row >= params.rows) {
    return;
  }
  let values = scaled16(weights16(index), 0u, row, index % params.segments);
  // @unroll
  for (var i = 0u; i < 4u; i++) {
    y[4u * index + i] = values[i];
  }
}
