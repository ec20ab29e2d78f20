// The second dispatch of a KDA layer for sequences with one row, per head, state S [key_dim]
// [value_dim] in place, from q, k, v (after the convolution), f, g (the low ranks) and b:
//   q <- q / sqrt(sum q^2 + 1e-6) / sqrt(key_dim),  k <- k / sqrt(sum k^2 + 1e-6)
//   r = exp(-exp(a_log) softplus(W_fb f + dt_bias)),  beta = sigmoid(b)
//   S <- diag(r) S;  e = beta (v - S^T k);  S <- S + k e^T;  o = S^T q
//   y = o_norm o sigmoid(W_gb g), which lacks the norm's factor 1 / sqrt(mean(o^2) + epsilon)
//
//   mixed       f32 [row_count][mixed_stride]: q | k | v | f | g | b
//   weights     float rows: W_fb [heads key_dim][rank], from segment gate_start on W_gb
//               [heads value_dim][rank of the gate]
//   vectors     f32: a_log [heads], then dt_bias, o_norm from bias_start, norm_start on
//   rows        u32 [row_count][4]: sequence, position, slot, pages
//   state       f32 [slots][heads][key_dim][value_dim]
//   groups_out  activation groups [row_count][X_QUADS][heads value_dim / 32] of y with the squares
//               of o
//
// One workgroup: 32 value channels of one head of one row; thread = 32 part + column, and part p
// takes key channels [p KEY_PART, (p + 1) KEY_PART). Loops: 5 KEY_DIM / THREADS + ranks turns.

struct Params {
  head_count: u32,
  value_dim: u32,
  mixed_stride: u32,
  slices: u32,
  gate_start: u32,
  bias_start: u32,
  norm_start: u32,
  even_first: u32,
}

const L2_EPSILON: f32 = 1e-6;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> mixed: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> vectors: array<f32>;
@group(0) @binding(4) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> state: array<f32>;
@group(0) @binding(6) var<storage, read_write> groups_out: array<vec4<u32>>;

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let head = group.x / params.slices;
  let slice = group.x % params.slices;
  let row = group.y;
  let slot = rows[row].z;
  let column = slice * 32u + thread % 32u;
  let part = thread / 32u;
  let keys = params.head_count * KEY_DIM;
  let start = row * params.mixed_stride;
  let first = ((slot * params.head_count + head) * KEY_DIM + part * KEY_PART) * params.value_dim +
    column;
  var s = array<f32, KEY_PART>();
  // @unroll
  for (var i = 0u; i < KEY_PART; i++) {
    s[i] = state[first + i * params.value_dim];
  }
  let values = start + 2u * keys + head * params.value_dim;
  let low_start = start + 2u * keys + params.head_count * params.value_dim;
  let v = mixed[values + column];
  let write_strength = mixed[low_start + 16u * (RANK_SEGMENTS + GATE_SEGMENTS) + head];
  let rate = exp(vectors[head]);
  let norm = vectors[params.norm_start + column];
  for (var i = thread; i < 16u * (RANK_SEGMENTS + GATE_SEGMENTS); i += THREADS) {
    low[i / 4u][i % 4u] = mixed[low_start + i];
  }
  for (var d = thread; d < KEY_DIM; d += THREADS) {
    q[d] = mixed[start + head * KEY_DIM + d];
    k[d] = mixed[start + keys + head * KEY_DIM + d];
  }
  workgroupBarrier();
  leave_parts(thread, head * KEY_DIM,
    params.gate_start + (head * params.value_dim + slice * 32u) * GATE_SEGMENTS);
  workgroupBarrier();
  for (var d = thread; d < KEY_DIM; d += THREADS) {
    let a = vectors[params.bias_start + head * KEY_DIM + d] + decay_sum(d);
    r[d] = exp(-rate * softplus(a));
  }
  let q_factor = 1.0 / sqrt(squares_of(0u) + L2_EPSILON) / sqrt(f32(KEY_DIM));
  let k_factor = 1.0 / sqrt(squares_of(1u) + L2_EPSILON);
  var gate = 0.0;
  if (thread < 32u) {
    gate = gate_sum(thread);
  }
  workgroupBarrier();
  var predicted = 0.0;
  // @unroll
  for (var i = 0u; i < KEY_PART; i++) {
    s[i] *= r[part * KEY_PART + i];
    predicted = fma(s[i], k[part * KEY_PART + i] * k_factor, predicted);
  }
  column_parts[thread] = predicted;
  workgroupBarrier();
  let error = sigmoid(write_strength) * (v - column_sum(thread % 32u));
  var output = 0.0;
  // @unroll
  for (var i = 0u; i < KEY_PART; i++) {
    s[i] = fma(k[part * KEY_PART + i] * k_factor, error, s[i]);
    state[first + i * params.value_dim] = s[i];
    output = fma(s[i], q[part * KEY_PART + i] * q_factor, output);
  }
  workgroupBarrier();
  column_parts[thread] = output;
  workgroupBarrier();
  var y = 0.0;
  if (thread < 32u) {
    output = column_sum(thread);
    y = output * norm * sigmoid(gate);
  }
  let place = group_place(row, group.x, params.head_count * params.slices);
  store_group(thread, thread < 32u, y, output * output, place, params.even_first != 0u);
}
