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
// holds S of the key quads [p PART_QUADS, (p + 1) PART_QUADS) in its column from the first chunk to
// the last. Loops: 1 turn a chunk.

struct Params {
  head_count: u32,
  key_dim: u32,
  value_dim: u32,
  mixed_stride: u32,
  slices: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> mixed: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> scores: array<f32>;
@group(0) @binding(4) var<storage, read> kept: array<f32>;
@group(0) @binding(5) var<storage, read> chunks: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read> prefills: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read_write> state: array<f32>;
@group(0) @binding(8) var<storage, read_write> o: array<f32>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let head = group.x / params.slices;
  let lane = thread % COLUMNS;
  let part = thread / COLUMNS;
  let column = group.x % params.slices * COLUMNS + lane;
  let used = column < params.value_dim;
  let prefill = prefills[group.y];
  let keys = params.head_count * params.key_dim;
  let s_start = (prefill.x * params.head_count + head) * params.key_dim * params.value_dim + column;
  var s = array<vec4<f32>, PART_QUADS>();
  // @unroll
  for (var j = 0u; j < PART_QUADS; j++) {
    // @unroll
    for (var c = 0u; c < 4u; c++) {
      let d = 4u * (part * PART_QUADS + j) + c;
      if (used && d < params.key_dim) {
        s[j][c] = state[s_start + d * params.value_dim];
      }
    }
  }
  for (var n = prefill.y; n < prefill.y + prefill.z; n++) {
    let row = chunks[n].x;
    let rows = chunks[n].y;
    let chunk_head = n * params.head_count + head;
    var later = array<f32, LOADS>();
    // @unroll
    for (var l = 0u; l < LOADS; l++) {
      let i = (thread + l * THREADS) / (4u * KEY_QUADS);
      let d = (thread + l * THREADS) % (4u * KEY_QUADS);
      var q_value = 0.0;
      var w_value = 0.0;
      if (i < rows && d < params.key_dim) {
        let at = (row + i) * params.mixed_stride + head * params.key_dim + d;
        q_value = mixed[at];
        later[l] = mixed[at + keys];
        w_value = w[(row + i) * keys + head * params.key_dim + d];
      }
      if (i < ROWS) {
        q_tile[thread + l * THREADS] = q_value;
        tile[thread + l * THREADS] = w_value;
      }
    }
    // The thread's rows of U: part and part + 8.
    var u = vec2(0.0);
    // @unroll
    for (var h = 0u; h < 2u; h++) {
      let i = part + h * PARTS;
      if (i < rows && used) {
        let v_start = (row + i) * params.mixed_stride + 2u * keys + head * params.value_dim;
        u[h] = mixed[v_start + column];
      }
    }
    workgroupBarrier();
    var qs = array<f32, ROWS>();
    // @unroll
    for (var i = 0u; i < ROWS; i++) {
      var ws = 0.0;
      // @unroll
      for (var j = 0u; j < PART_QUADS; j++) {
        ws += dot(quad_of(i, min(part * PART_QUADS + j, KEY_QUADS - 1u)), s[j]);
        qs[i] += dot(q_quad_of(i, min(part * PART_QUADS + j, KEY_QUADS - 1u)), s[j]);
      }
      parts[part * 256u + i * COLUMNS + lane] = ws;
    }
    workgroupBarrier();
    // @unroll
    for (var h = 0u; h < 2u; h++) {
      let i = part + h * PARTS;
      values[i * COLUMNS + lane] = select(0.0, u[h] - part_sum(i, lane), i < rows && used);
    }
    // @unroll
    for (var l = 0u; l < LOADS; l++) {
      if (thread + l * THREADS < ROWS * KEY_QUADS * 4u) {
        tile[thread + l * THREADS] = later[l];
      }
    }
    workgroupBarrier();
    // @unroll
    for (var i = 0u; i < ROWS; i++) {
      parts[part * 256u + i * COLUMNS + lane] = qs[i];
    }
    advance(&s, chunk_head * params.key_dim, part, lane);
    workgroupBarrier();
    // @unroll
    for (var h = 0u; h < 2u; h++) {
      let i = part + h * PARTS;
      var output = part_sum(i, lane);
      // @unroll
      for (var j = 0u; j < ROWS; j++) {
        output = fma(scores[chunk_head * 256u + i * ROWS + j], values[j * COLUMNS + lane], output);
      }
      if (used && i < rows) {
        o[((row + i) * params.head_count + head) * params.value_dim + column] = output;
      }
    }
    workgroupBarrier();
  }
  // @unroll
  for (var j = 0u; j < PART_QUADS; j++) {
    // @unroll
    for (var c = 0u; c < 4u; c++) {
      let d = 4u * (part * PART_QUADS + j) + c;
      if (used && d < params.key_dim) {
        state[s_start + d * params.value_dim] = s[j][c];
      }
    }
  }
}
