// silu(gate) up of each row, rounded to int8 in groups (lib/quantize_groups.wgsl).
//
//   gate_up     f32 [row_count][2 width]: gate, then up
//   words       vec2<u32> [row_count][8 steps]
//   row_scales  f32 [row_count][2 steps]
//
// One thread: 8 columns. No loops.

struct Params {
  row_count: u32,
  width: u32,
  steps: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gate_up: array<f32>;
@group(0) @binding(2) var<storage, read_write> words: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> row_scales: array<f32>;

fn product(row: u32, column: u32) -> f32 {
  if (row >= params.row_count || column >= params.width) {
    return 0.0;
  }
  let gate = row * 2u * params.width + column;
  return silu(gate_up[gate]) * gate_up[gate + params.width];
}

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let unit = (group.y * groups.x + group.x) * QUANTIZE_THREADS + thread;
  let row = unit / (8u * params.steps);
  let column = unit % (8u * params.steps) * 8u;
  var even = vec4(0.0);
  var odd = vec4(0.0);
  // @unroll
  for (var i = 0u; i < 4u; i++) {
    even[i] = product(row, column + 2u * i);
    odd[i] = product(row, column + 2u * i + 1u);
  }
  quantize_unit(thread, unit, row < params.row_count, even, odd);
}
