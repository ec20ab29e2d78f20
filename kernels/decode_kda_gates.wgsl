// The gates of a KDA layer for several sequences with one row, from f and g (the low ranks):
//   r = exp(-exp(a_log) softplus(W_fb f + dt_bias)),  gate = sigmoid(W_gb g)
//
//   mixed    f32 [row_count][mixed_stride]: f | g from low_start on
//   weights  float rows: W_fb [keys][rank], from segment gate_start on W_gb [values][rank of the
//            gate]; keys = heads KEY_DIM
//   vectors  f32: a_log [heads], then dt_bias from bias_start on
//   gates    f32 [row_count][r [keys] | gate [values]]
//
// One workgroup: TILE rows of W_fb or of W_gb, LOW_LANES neighbouring threads for ROWS of them,
// THREADS / LOW_LANES apart; X_ROWS rows of x. Workgroups of the same weights are neighbours.
// Loops: X_ROWS ranks / THREADS turns.

struct Params {
  row_count: u32,
  mixed_stride: u32,
  low_start: u32,
  keys: u32,
  values: u32,
  key_tiles: u32,
  gate_start: u32,
  bias_start: u32,
}

const THREADS: u32 = 128u;
const KEY_DIM: u32 = 128u;
const X_ROWS: u32 = 8u;
const ROWS: u32 = 2u;
const TILE: u32 = THREADS / LOW_LANES * ROWS;
// Segments of 16 columns in a row of W_fb and of W_gb, and in the longer ones.
const RANK_SEGMENTS: u32 = 1u;
const GATE_SEGMENTS: u32 = 1u;
const SEGMENTS: u32 = 1u;
// Segments of a thread in a row of weights, and in its ROWS.
const STEPS: u32 = 1u;
const LOADS: u32 = ROWS * STEPS;
// Results of a thread: TILE X_ROWS / THREADS.
const RESULTS: u32 = 2u;
// From one lane's sums to the next one's: neighbours write to other banks.
const LANE_STRIDE: u32 = X_ROWS * TILE + 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> mixed: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> vectors: array<f32>;
@group(0) @binding(4) var<storage, read_write> gates: array<f32>;

// [row of x], f or g of each.
var<workgroup> low: array<vec4<f32>, X_ROWS * SEGMENTS * LOW_STRIDE>;
// [lane][row of x][row of weights]
var<workgroup> parts: array<f32, LOW_LANES * LANE_STRIDE>;

fn low_segment(row: u32, segment: u32) -> mat4x4<f32> {
  let at = (row * SEGMENTS + segment) * LOW_STRIDE;
  return mat4x4<f32>(low[at], low[at + 1u], low[at + 2u], low[at + 3u]);
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let lane = thread % LOW_LANES;
  let first_row = group.x * X_ROWS;
  let is_gate = group.y >= params.key_tiles;
  let first = (group.y - select(0u, params.key_tiles, is_gate)) * TILE;
  let count = select(params.keys, params.values, is_gate);
  let segments = select(RANK_SEGMENTS, GATE_SEGMENTS, is_gate);
  var w = array<mat4x4<f32>, LOADS>();
  // @unroll
  for (var i = 0u; i < STEPS; i++) {
    // @unroll
    for (var n = 0u; n < ROWS; n++) {
      let line = min(first + n * (THREADS / LOW_LANES) + thread / LOW_LANES, count - 1u);
      let segment = min(lane + i * LOW_LANES, segments - 1u);
      w[i * ROWS + n] = weights16(
        select(0u, params.gate_start, is_gate) + line * segments + segment);
    }
  }
  let low_start = params.low_start + select(0u, 16u * RANK_SEGMENTS, is_gate);
  for (var i = thread; i < X_ROWS * 16u * segments; i += THREADS) {
    let j = i / (16u * segments);
    let column = i % (16u * segments);
    let row = min(first_row + j, params.row_count - 1u);
    low[j * SEGMENTS * LOW_STRIDE + low_quad(column)][column % 4u] =
      mixed[row * params.mixed_stride + low_start + column];
  }
  workgroupBarrier();
  // @unroll
  for (var j = 0u; j < X_ROWS; j++) {
    var sums = array<f32, ROWS>();
    // @unroll
    for (var i = 0u; i < STEPS; i++) {
      let segment = lane + i * LOW_LANES;
      if (segment < segments) {
        let x = low_segment(j, segment);
        // @unroll
        for (var n = 0u; n < ROWS; n++) {
          sums[n] += low_product(w[i * ROWS + n], x);
        }
      }
    }
    // @unroll
    for (var n = 0u; n < ROWS; n++) {
      parts[lane * LANE_STRIDE + j * TILE + n * (THREADS / LOW_LANES) + thread / LOW_LANES] =
        sums[n];
    }
  }
  workgroupBarrier();
  // @unroll
  for (var turn = 0u; turn < RESULTS; turn++) {
    let item = turn * THREADS + thread;
    var sum = 0.0;
    // @unroll
    for (var l = 0u; l < LOW_LANES; l++) {
      sum += parts[l * LANE_STRIDE + item];
    }
    let line = first + item % TILE;
    let row = first_row + item / TILE;
    if (row < params.row_count && line < count) {
      let at = row * (params.keys + params.values) + line;
      if (is_gate) {
        gates[at + params.keys] = sigmoid(sum);
      } else {
        let bias = vectors[params.bias_start + line];
        gates[at] = retention(vectors[line / KEY_DIM], bias + sum);
      }
    }
  }
}
