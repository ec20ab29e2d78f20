// The part of KDA's chunks that needs the state S [key_dim][value_dim], in order over the chunks of
// each sequence, with what kda_chunk_prepare left:
//   N = U - W S;  O = (q P) S + Aqk N;  S <- diag(kept) S + (k later)^T N
//
//   mixed      f32 [rows][mixed_stride]: q P | k later | U
//   w          f32 [rows][head_count][key_dim]
//   scores     f32 [chunks][head_count][16 i][16 j] = Aqk
//   kept       f32 [chunks][head_count][key_dim]
//   chunks     u32 [..][4]: first row, rows, ..., ...
//   prefills   u32 [..][4]: slot, first chunk, chunks, 0; entry group.y
//   state      f32 [slots][head_count][key_dim][value_dim], in place
//   o          f32 [rows][head_count][value_dim]
//
// One workgroup: 16 columns of one head of one sequence; thread = 16 part + column, and part p
// takes the key channels p, p + 8, ..., so that nobody else touches a thread's elements of S.
// Loops: 2 key_dim / 8 + 70 turns a chunk.

struct Params {
  head_count: u32,
  key_dim: u32,
  value_dim: u32,
  mixed_stride: u32,
  slices: u32,
}

const THREADS: u32 = 128u;
const ROWS: u32 = 16u;
const COLUMNS: u32 = 16u;
const PARTS: u32 = 8u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> mixed: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> scores: array<f32>;
@group(0) @binding(4) var<storage, read> kept: array<f32>;
@group(0) @binding(5) var<storage, read> chunks: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read> prefills: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read_write> state: array<f32>;
@group(0) @binding(8) var<storage, read_write> o: array<f32>;

// [part][row][column]
var<workgroup> ws_parts: array<f32, 2048>;
var<workgroup> qs_parts: array<f32, 2048>;
// N: [row][column], 0 beyond the chunk's rows and the head's columns.
var<workgroup> values: array<f32, 256>;

// This thread's part of W S and (q P) S of the rows.
fn state_products(q_start: u32, w_start: u32, s_start: u32, rows: u32, thread: u32, used: bool) {
  var ws = array<f32, 16>();
  var qs = array<f32, 16>();
  if (used) {
    for (var d = thread / COLUMNS; d < params.key_dim; d += PARTS) {
      let s = state[s_start + d * params.value_dim];
      // @unroll
      for (var i = 0u; i < ROWS; i++) {
        if (i < rows) {
          ws[i] = fma(w[w_start + i * params.head_count * params.key_dim + d], s, ws[i]);
          qs[i] = fma(mixed[q_start + i * params.mixed_stride + d], s, qs[i]);
        }
      }
    }
  }
  // @unroll
  for (var i = 0u; i < ROWS; i++) {
    ws_parts[thread / COLUMNS * 256u + i * COLUMNS + thread % COLUMNS] = ws[i];
    qs_parts[thread / COLUMNS * 256u + i * COLUMNS + thread % COLUMNS] = qs[i];
  }
}

// S <- diag(kept) S + (k later)^T N for this thread's elements.
fn update_state(k_start: u32, kept_start: u32, s_start: u32, rows: u32, thread: u32) {
  for (var d = thread / COLUMNS; d < params.key_dim; d += PARTS) {
    let at = s_start + d * params.value_dim;
    var s = kept[kept_start + d] * state[at];
    // @unroll
    for (var i = 0u; i < ROWS; i++) {
      if (i < rows) {
        let k = mixed[k_start + i * params.mixed_stride + d];
        s = fma(k, values[i * COLUMNS + thread % COLUMNS], s);
      }
    }
    state[at] = s;
  }
}

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let head = group.x / params.slices;
  let column = group.x % params.slices * COLUMNS + thread % COLUMNS;
  let used = column < params.value_dim;
  let prefill = prefills[group.y];
  let keys = params.head_count * params.key_dim;
  let s_start = (prefill.x * params.head_count + head) * params.key_dim * params.value_dim + column;
  for (var n = prefill.y; n < prefill.y + prefill.z; n++) {
    let row = chunks[n].x;
    let rows = chunks[n].y;
    let chunk_head = n * params.head_count + head;
    let q_start = row * params.mixed_stride + head * params.key_dim;
    state_products(q_start, row * keys + head * params.key_dim, s_start, rows, thread, used);
    workgroupBarrier();
    // Thread's rows: thread / 16 and 8 more; its column stays the same.
    for (var i = thread / COLUMNS; i < ROWS; i += PARTS) {
      let at = i * COLUMNS + thread % COLUMNS;
      var value = 0.0;
      if (i < rows && used) {
        let v_start = (row + i) * params.mixed_stride + 2u * keys + head * params.value_dim;
        value = mixed[v_start + column];
        for (var part = 0u; part < PARTS; part++) {
          value -= ws_parts[part * 256u + at];
        }
      }
      values[at] = value;
    }
    workgroupBarrier();
    for (var i = thread / COLUMNS; i < rows; i += PARTS) {
      let at = i * COLUMNS + thread % COLUMNS;
      var output = 0.0;
      for (var part = 0u; part < PARTS; part++) {
        output += qs_parts[part * 256u + at];
      }
      for (var j = 0u; j <= i; j++) {
        let score = scores[chunk_head * 256u + i * ROWS + j];
        output = fma(score, values[j * COLUMNS + thread % COLUMNS], output);
      }
      if (used) {
        o[((row + i) * params.head_count + head) * params.value_dim + column] = output;
      }
    }
    if (used) {
      update_state(q_start + keys, chunk_head * params.key_dim, s_start, rows, thread);
    }
    workgroupBarrier();
  }
}
