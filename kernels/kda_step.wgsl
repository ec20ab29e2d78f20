// One token of the delta rule for sequences with a single row, per head, state S [key_dim]
// [value_dim] in place:
//   S <- diag(r) S;  e = beta (v - S^T k);  S <- S + k e^T;  o = S^T q
//
//   mixed      f32 [rows][mixed_stride]: q | k | v, normalised
//   retention  f32 [rows][head_count][key_dim] = r
//   beta       f32 [rows][head_count]
//   chunks     u32 [..][4]: row, 1, slot, 1; entries chunk_start + group.y
//   state      f32 [slots][head_count][key_dim][value_dim]
//   o          f32 [rows][head_count][value_dim]
//
// One workgroup: 32 columns of one head of one sequence; thread = 32 part + column, and part p
// takes the key channels p, p + 4, ... Loops: 2 key_dim / 4 + key_dim / 128 turns.

struct Params {
  head_count: u32,
  value_dim: u32,
  mixed_stride: u32,
  chunk_start: u32,
  slices: u32,
}

override KEY_DIM: u32 = 128u;
const THREADS: u32 = 128u;
const COLUMNS: u32 = 32u;
const PARTS: u32 = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> mixed: array<f32>;
@group(0) @binding(2) var<storage, read> retention: array<f32>;
@group(0) @binding(3) var<storage, read> beta: array<f32>;
@group(0) @binding(4) var<storage, read> chunks: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> state: array<f32>;
@group(0) @binding(6) var<storage, read_write> o: array<f32>;

var<workgroup> q: array<f32, KEY_DIM>;
var<workgroup> k: array<f32, KEY_DIM>;
var<workgroup> r: array<f32, KEY_DIM>;
var<workgroup> predictions: array<f32, THREADS>;
var<workgroup> outputs: array<f32, THREADS>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let head = group.x / params.slices;
  let column = group.x % params.slices * COLUMNS + thread % COLUMNS;
  let used = column < params.value_dim;
  let chunk = chunks[params.chunk_start + group.y];
  let row = chunk.x;
  let keys = params.head_count * KEY_DIM;
  let start = row * params.mixed_stride + head * KEY_DIM;
  for (var d = thread; d < KEY_DIM; d += THREADS) {
    q[d] = mixed[start + d];
    k[d] = mixed[start + keys + d];
    r[d] = retention[row * keys + head * KEY_DIM + d];
  }
  workgroupBarrier();
  let first = (chunk.z * params.head_count + head) * KEY_DIM * params.value_dim + column;
  var sum = 0.0;
  if (used) {
    for (var d = thread / COLUMNS; d < KEY_DIM; d += PARTS) {
      sum = fma(r[d] * state[first + d * params.value_dim], k[d], sum);
    }
  }
  predictions[thread] = sum;
  workgroupBarrier();
  var predicted = 0.0;
  // @unroll
  for (var part = 0u; part < 4u; part++) {
    predicted += predictions[part * COLUMNS + thread % COLUMNS];
  }
  sum = 0.0;
  if (used) {
    let v = mixed[row * params.mixed_stride + 2u * keys + head * params.value_dim + column];
    let error = beta[row * params.head_count + head] * (v - predicted);
    for (var d = thread / COLUMNS; d < KEY_DIM; d += PARTS) {
      let at = first + d * params.value_dim;
      let updated = fma(k[d], error, r[d] * state[at]);
      state[at] = updated;
      sum = fma(updated, q[d], sum);
    }
  }
  outputs[thread] = sum;
  workgroupBarrier();
  if (thread < COLUMNS && used) {
    var output = 0.0;
    // @unroll
    for (var part = 0u; part < 4u; part++) {
      output += outputs[part * COLUMNS + thread];
    }
    o[(row * params.head_count + head) * params.value_dim + column] = output;
  }
}
