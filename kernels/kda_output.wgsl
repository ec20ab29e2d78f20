// KDA's output norm, per head over its value channels, in place:
//   o <- weight o / sqrt(mean(o^2) + epsilon) sigmoid(gate)
//
//   gate    f32 [rows][head_count][value_dim], before the sigmoid
//   weight  f32 [value_dim], shared by all heads
//   o       f32 [rows][head_count][value_dim]
//
// One workgroup: one head of one row. Loops: 2 value_dim / 128 + 7 turns.

struct Params {
  head_count: u32,
  value_dim: u32,
  epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gate: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> o: array<f32>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let start = (group.y * params.head_count + group.x) * params.value_dim;
  var squares = 0.0;
  for (var i = thread; i < params.value_dim; i += SUM_THREADS) {
    squares = fma(o[start + i], o[start + i], squares);
  }
  let mean = workgroup_sum(thread, squares) / f32(params.value_dim);
  let factor = 1.0 / sqrt(mean + params.epsilon);
  for (var i = thread; i < params.value_dim; i += SUM_THREADS) {
    o[start + i] = weight[i] * (o[start + i] * factor) * sigmoid(gate[start + i]);
  }
}
