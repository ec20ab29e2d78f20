// What decode_kda_step.wgsl computes, for several rows whose gates decode_kda_gates.wgsl has
// computed: per head, state S [key_dim][value_dim] in place, from q, k, v and b,
//   q <- q / sqrt(sum q^2 + 1e-6) / sqrt(key_dim),  k <- k / sqrt(sum k^2 + 1e-6)
//   S <- diag(r) S;  e = sigmoid(b) (v - S^T k);  S <- S + k e^T;  o = S^T q;  y = o_norm o gate
//
//   mixed       f32 [row_count][mixed_stride]: q | k | v from 0, b from strength_start on
//   gates       f32 [row_count][r [heads key_dim] | gate [heads value_dim]]
//   o_norm      f32 [value_dim]
//   rows        u32 [row_count][4]: sequence, position, slot, pages
//   state       f32 quads [slots][heads][key_dim][value_dim / 4]
//   groups_out  activation groups [row_count][X_QUADS][heads value_dim / 32] of y with the squares
//               of o
//
// One workgroup: 32 value channels of one head of one row; thread = 8 lane + quad of columns, and
// lane l takes the RUNS partial sums from l RUNS on. Loops: 3 KEY_DIM / THREADS turns.

struct Params {
  head_count: u32,
  value_dim: u32,
  mixed_stride: u32,
  strength_start: u32,
  slices: u32,
  even_first: u32,
}

// Partial sums, and key channels, of a thread.
const RUNS: u32 = 1u;
const RUN_KEYS: u32 = RUNS * KEY_PART;
const THREADS: u32 = 8u * PARTS / RUNS;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> mixed: array<f32>;
@group(0) @binding(2) var<storage, read> gates: array<f32>;
@group(0) @binding(3) var<storage, read> o_norm: array<f32>;
@group(0) @binding(4) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> state: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> groups_out: array<vec4<u32>>;

// [part][quad]
var<workgroup> predictions: array<vec4<f32>, 8u * PARTS>;
var<workgroup> outputs: array<vec4<f32>, 8u * PARTS>;

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let head = group.x / params.slices;
  let slice = group.x % params.slices;
  let row = group.y;
  let quad = thread % 8u;
  let lane = thread / 8u;
  let keys = params.head_count * KEY_DIM;
  let values = params.head_count * params.value_dim;
  let step = params.value_dim / 4u;
  let first = ((rows[row].z * params.head_count + head) * KEY_DIM + lane * RUN_KEYS) * step +
    slice * 8u + quad;
  var s = array<vec4<f32>, RUN_KEYS>();
  // @unroll
  for (var n = 0u; n < RUNS; n++) {
    // @unroll
    for (var i = 0u; i < KEY_PART; i++) {
      s[n * KEY_PART + i] = state[first + (n * KEY_PART + i) * step];
    }
  }
  let start = row * params.mixed_stride;
  let gate_start = row * (keys + values);
  for (var d = thread; d < KEY_DIM; d += THREADS) {
    q[d] = mixed[start + head * KEY_DIM + d];
    k[d] = mixed[start + keys + head * KEY_DIM + d];
    r[d] = gates[gate_start + head * KEY_DIM + d];
  }
  let first_value = head * params.value_dim + slice * 32u;
  let v_start = start + 2u * keys + first_value + 4u * quad;
  let v = vec4(mixed[v_start], mixed[v_start + 1u], mixed[v_start + 2u], mixed[v_start + 3u]);
  let write_strength = mixed[start + params.strength_start + head];
  let gate = gates[gate_start + keys + first_value + thread % 32u];
  let norm = o_norm[slice * 32u + thread % 32u];
  workgroupBarrier();
  leave_squares(thread);
  // @unroll
  for (var n = 0u; n < RUNS; n++) {
    var predicted = vec4<f32>();
    // @unroll
    for (var i = 0u; i < KEY_PART; i++) {
      let d = lane * RUN_KEYS + n * KEY_PART + i;
      s[n * KEY_PART + i] *= r[d];
      predicted = fma(s[n * KEY_PART + i], vec4(k[d]), predicted);
    }
    predictions[(lane * RUNS + n) * 8u + quad] = predicted;
  }
  workgroupBarrier();
  var prediction = vec4<f32>();
  // @unroll
  for (var p = 0u; p < PARTS; p++) {
    prediction += predictions[p * 8u + quad];
  }
  let factor = k_factor();
  let error = sigmoid(write_strength) * fma(vec4(-factor), prediction, v);
  // @unroll
  for (var n = 0u; n < RUNS; n++) {
    var output = vec4<f32>();
    // @unroll
    for (var i = 0u; i < KEY_PART; i++) {
      let d = lane * RUN_KEYS + n * KEY_PART + i;
      s[n * KEY_PART + i] = fma(vec4(k[d]), factor * error, s[n * KEY_PART + i]);
      state[first + (n * KEY_PART + i) * step] = s[n * KEY_PART + i];
      output = fma(s[n * KEY_PART + i], vec4(q[d]), output);
    }
    outputs[(lane * RUNS + n) * 8u + quad] = output;
  }
  workgroupBarrier();
  var o = 0.0;
  if (thread < 32u) {
    // @unroll
    for (var p = 0u; p < PARTS; p++) {
      o += outputs[p * 8u + thread / 4u][thread % 4u];
    }
    o *= q_factor();
  }
  let place = group_place(row, group.x, params.head_count * params.slices);
  store_group(thread, thread < 32u, o * norm * gate, o * o, place, params.even_first != 0u);
}
