// Rows rounded to int8 in groups of 32 columns (lib/quantize_groups.wgsl).
//
//   x           f32 [row_count][x_stride], the first `columns` of each row used
//   words       vec2<u32> [row_count][8 steps]
//   row_scales  f32 [row_count][2 steps]
//
// One thread: 8 columns. No loops.

struct Params {
  row_count: u32,
  columns: u32,
  steps: u32,
  x_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> words: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> row_scales: array<f32>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let unit = (group.y * groups.x + group.x) * QUANTIZE_THREADS + thread;
  let row = unit / (8u * params.steps);
  let column = unit % (8u * params.steps) * 8u;
  let used = row < params.row_count;
  var even = vec4(0.0);
  var odd = vec4(0.0);
  // @unroll
  for (var i = 0u; i < 4u; i++) {
    if (used && column + 2u * i < params.columns) {
      even[i] = x[row * params.x_stride + column + 2u * i];
    }
    if (used && column + 2u * i + 1u < params.columns) {
      odd[i] = x[row * params.x_stride + column + 2u * i + 1u];
    }
  }
  quantize_unit(thread, unit, used, even, odd);
}
