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
//   rows        u32 [rows][4]: sequence, position, slot, pages; row_start + row
//   state       f32 [slots][heads][key_dim][value_dim]
//   groups_out  activation groups [row_count][heads value_dim / 32][3 quads] of y with the squares
//               of o
//
// One workgroup: 32 value channels of one head of one row; thread = 32 part + column, and part p
// takes key channels [p KEY_PART, (p + 1) KEY_PART). Loops: about 2 key_dim / 128 * rank / 16 turns.

struct Params {
  row_start: u32,
  head_count: u32,
  value_dim: u32,
  mixed_stride: u32,
  slices: u32,
  rank: u32,
  gate_rank: u32,
  gate_start: u32,
  bias_start: u32,
  norm_start: u32,
  even_first: u32,
}

const KEY_PART: u32 = 32u;
const KEY_DIM: u32 = 4u * KEY_PART;
const L2_EPSILON: f32 = 1e-6;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> mixed: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> vectors: array<f32>;
@group(0) @binding(4) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> state: array<f32>;
@group(0) @binding(6) var<storage, read_write> groups_out: array<vec4<u32>>;

var<workgroup> q: array<f32, KEY_DIM>;
var<workgroup> k: array<f32, KEY_DIM>;
var<workgroup> r: array<f32, KEY_DIM>;
var<workgroup> parts: array<f32, 128>;
var<workgroup> gates: array<f32, 128>;

// The sum of the four parts of the thread's column.
fn column_sum(thread: u32, value: f32) -> f32 {
  workgroupBarrier();
  parts[thread] = value;
  workgroupBarrier();
  let column = thread % 32u;
  return (parts[column] + parts[32u + column]) + (parts[64u + column] + parts[96u + column]);
}

// Segments [begin, end) of a float row that begins at segment `start`, times mixed from `x` on.
fn rank_product(start: u32, x: u32, begin: u32, end: u32) -> f32 {
  var sum = 0.0;
  for (var segment = begin; segment < end; segment++) {
    let w = weights16(start + segment);
    // @unroll
    for (var i = 0u; i < 16u; i++) {
      sum = fma(w[i / 4u][i % 4u], mixed[x + segment * 16u + i], sum);
    }
  }
  return sum;
}

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let head = group.x / params.slices;
  let slice = group.x % params.slices;
  let row = group.y;
  let slot = rows[params.row_start + row].z;
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
  let low = start + 2u * keys + params.head_count * params.value_dim;
  var q_squares = 0.0;
  var k_squares = 0.0;
  let rate = exp(vectors[head]);
  let segments = (params.rank + 15u) / 16u;
  for (var d = thread; d < KEY_DIM; d += 128u) {
    let channel = head * KEY_DIM + d;
    q[d] = mixed[start + channel];
    k[d] = mixed[start + keys + channel];
    q_squares = fma(q[d], q[d], q_squares);
    k_squares = fma(k[d], k[d], k_squares);
    let a = rank_product(channel * segments, low, 0u, segments) +
      vectors[params.bias_start + channel];
    r[d] = exp(-rate * softplus(a));
  }
  // A quarter of the output gate's row a thread.
  let gate_segments = (params.gate_rank + 15u) / 16u;
  let quarter = (gate_segments + 3u) / 4u;
  let gate_part = rank_product(
    params.gate_start + (head * params.value_dim + column) * gate_segments, low + params.rank,
    min(part * quarter, gate_segments), min((part + 1u) * quarter, gate_segments));
  let gate = column_sum(thread, gate_part);
  let q_factor = 1.0 / sqrt(workgroup_sum(thread, q_squares) + L2_EPSILON) /
    sqrt(f32(KEY_DIM));
  let k_factor = 1.0 / sqrt(workgroup_sum(thread, k_squares) + L2_EPSILON);
  var predicted = 0.0;
  // @unroll
  for (var i = 0u; i < KEY_PART; i++) {
    s[i] *= r[part * KEY_PART + i];
    predicted = fma(s[i], k[part * KEY_PART + i] * k_factor, predicted);
  }
  predicted = column_sum(thread, predicted);
  let beta = sigmoid(mixed[low + params.rank + params.gate_rank + head]);
  let error = beta * (mixed[values + column] - predicted);
  var output = 0.0;
  // @unroll
  for (var i = 0u; i < KEY_PART; i++) {
    s[i] = fma(k[part * KEY_PART + i] * k_factor, error, s[i]);
    state[first + i * params.value_dim] = s[i];
    output = fma(s[i], q[part * KEY_PART + i] * q_factor, output);
  }
  output = column_sum(thread, output);
  let y = output * vectors[params.norm_start + column] * sigmoid(gate);
  let at = ((row * params.head_count + head) * params.slices + slice) * 3u;
  store_group(thread, thread < 32u, y, output * output, at, params.even_first != 0u);
}
