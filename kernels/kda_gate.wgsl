// What KDA's recurrence needs of a token, in place, per head h and key channel d:
//   q <- q / sqrt(sum q^2 + 1e-6) / sqrt(key_dim),  k <- k / sqrt(sum k^2 + 1e-6)
//   retention = exp(g),  g = -exp(a_log[h]) softplus(a[h][d] + dt_bias[h][d])
//   beta = sigmoid(b[h])
// softplus(x) = x for x > 20. Retentions, not their logarithms, go on: all later factors are
// products of retentions in [0, 1], which lose no digits and cannot overflow.
//
//   mixed      f32 [rows][mixed_stride]: q | k | v, q and k [head_count][key_dim] each, normalised
//   retention  f32 [rows][head_count][key_dim]: a before, exp(g) after
//   beta       f32 [rows][head_count]: b before, sigmoid(b) after
//   a_log      f32 [head_count], dt_bias f32 [head_count][key_dim]
//
// One workgroup: one head of one row. Loops: 5 key_dim / 128 + 14 turns.

struct Params {
  head_count: u32,
  key_dim: u32,
  mixed_stride: u32,
}

const L2_EPSILON: f32 = 1e-6;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a_log: array<f32>;
@group(0) @binding(2) var<storage, read> dt_bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> mixed: array<f32>;
@group(0) @binding(4) var<storage, read_write> retention: array<f32>;
@group(0) @binding(5) var<storage, read_write> beta: array<f32>;

// Scales a head's vector at `start` to the length `scale` (the rows are a workgroup's own).
fn normalize(start: u32, scale: f32, thread: u32) {
  var squares = 0.0;
  for (var d = thread; d < params.key_dim; d += SUM_THREADS) {
    squares = fma(mixed[start + d], mixed[start + d], squares);
  }
  let factor = scale / sqrt(workgroup_sum(thread, squares) + L2_EPSILON);
  for (var d = thread; d < params.key_dim; d += SUM_THREADS) {
    mixed[start + d] *= factor;
  }
}

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let head = group.x;
  let row = group.y;
  let start = row * params.mixed_stride + head * params.key_dim;
  normalize(start, 1.0 / sqrt(f32(params.key_dim)), thread);
  normalize(start + params.head_count * params.key_dim, 1.0, thread);
  let rate = exp(a_log[head]);
  for (var d = thread; d < params.key_dim; d += SUM_THREADS) {
    let channel = head * params.key_dim + d;
    let at = row * params.head_count * params.key_dim + channel;
    retention[at] = exp(-rate * softplus(retention[at] + dt_bias[channel]));
  }
  if (thread == 0u) {
    let at = row * params.head_count + head;
    beta[at] = sigmoid(beta[at]);
  }
}
