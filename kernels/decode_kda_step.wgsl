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
// takes key channels [p KEY_PART, (p + 1) KEY_PART). A row's bits are those that it gets from
// decode_kda_gates.wgsl and decode_kda_update.wgsl. Loops: 2 KEY_DIM / THREADS + ranks turns.

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
  let w = low_weights(thread, head * KEY_DIM,
    params.gate_start + (head * params.value_dim + slice * 32u) * GATE_SEGMENTS);
  let values = start + 2u * keys + head * params.value_dim;
  let low_start = start + 2u * keys + params.head_count * params.value_dim;
  let v = mixed[values + column];
  let write_strength = mixed[low_start + 16u * (RANK_SEGMENTS + GATE_SEGMENTS) + head];
  let norm = vectors[params.norm_start + column];
  for (var i = thread; i < 16u * (RANK_SEGMENTS + GATE_SEGMENTS); i += THREADS) {
    low[low_quad(i)][i % 4u] = mixed[low_start + i];
  }
  for (var d = thread; d < KEY_DIM; d += THREADS) {
    q[d] = mixed[start + head * KEY_DIM + d];
    k[d] = mixed[start + keys + head * KEY_DIM + d];
  }
  workgroupBarrier();
  leave_squares(thread);
  leave_parts(thread, w);
  workgroupBarrier();
  for (var d = thread; d < KEY_DIM; d += THREADS) {
    let bias = vectors[params.bias_start + head * KEY_DIM + d];
    r[d] = retention(vectors[head], bias + decay_sum(d));
  }
  workgroupBarrier();
  var predicted = 0.0;
  // @unroll
  for (var i = 0u; i < KEY_PART; i++) {
    s[i] *= r[part * KEY_PART + i];
    predicted = fma(s[i], k[part * KEY_PART + i], predicted);
  }
  column_parts[thread] = predicted;
  workgroupBarrier();
  let factor = k_factor();
  let error = sigmoid(write_strength) * fma(-factor, column_sum(0u, thread % 32u), v);
  var output = 0.0;
  // @unroll
  for (var i = 0u; i < KEY_PART; i++) {
    s[i] = fma(k[part * KEY_PART + i], factor * error, s[i]);
    state[first + i * params.value_dim] = s[i];
    output = fma(s[i], q[part * KEY_PART + i], output);
  }
  column_parts[THREADS + thread] = output;
  workgroupBarrier();
  var y = 0.0;
  if (thread < 32u) {
    output = column_sum(THREADS, thread) * q_factor();
    y = output * norm * sigmoid(gate_sum(thread));
  }
  let place = group_place(row, group.x, params.head_count * params.slices);
  store_group(thread, thread < 32u, y, output * output, place, params.even_first != 0u);
}
