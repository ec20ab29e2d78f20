// y[row][c] = silu(gate_up[row][c]) gate_up[row][width + c].
//
//   gate_up  f32 [row_count][2 width]: gate, then up
//   y        f32 [row_count][width]
//
// One thread: one element. No loops.

struct Params {
  row_count: u32,
  width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gate_up: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

const THREADS: u32 = 256u;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = (group.y * groups.x + group.x) * THREADS + thread;
  if (index >= params.row_count * params.width) {
    return;
  }
  let gate = index / params.width * 2u * params.width + index % params.width;
  y[index] = silu(gate_up[gate]) * gate_up[gate + params.width];
}
