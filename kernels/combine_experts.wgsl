// y[row] += sum over i of weights[row][i] outputs[row][i], i in the router's order.
//
//   outputs  f32 [row_count][choices][width]
//   weights  f32 [row_count][choices]
//   y        f32 [row_count][width]
//
// One thread: one element. Loops: choices turns.

struct Params {
  row_count: u32,
  choices: u32,
  width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> outputs: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

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
  let pairs = index / params.width * params.choices;
  var sum = 0.0;
  for (var pair = pairs; pair < pairs + params.choices; pair++) {
    sum = fma(weights[pair], outputs[pair * params.width + index % params.width], sum);
  }
  y[index] += sum;
}
