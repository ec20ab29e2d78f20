// Sums that the threads of decode_kda_step.wgsl share: products with the low ranks, columns of the
// state. Before it come lib/low_rank.wgsl and lib/kda_keys.wgsl.

const THREADS: u32 = 32u * PARTS;
// Segments of 16 columns in a row of W_fb and of W_gb.
const RANK_SEGMENTS: u32 = 1u;
const GATE_SEGMENTS: u32 = 1u;
// Rows of W_fb at once; turns; segments of a thread in a row, and in all its rows.
const RANK_ROWS: u32 = THREADS / LOW_LANES;
const RANK_TURNS: u32 = 1u;
const RANK_STEPS: u32 = 1u;
const RANK_LOADS: u32 = RANK_TURNS * RANK_STEPS;
const GATE_STEPS: u32 = 1u;
// From one lane's sums to the next one's: neighbours write to other banks.
const DECAY_STRIDE: u32 = KEY_DIM + 4u;
const GATE_STRIDE: u32 = 36u;

// f, then g.
var<workgroup> low: array<vec4<f32>, LOW_STRIDE * (RANK_SEGMENTS + GATE_SEGMENTS)>;
// [lane][row], [lane][column]
var<workgroup> decay_parts: array<f32, LOW_LANES * DECAY_STRIDE>;
var<workgroup> gate_parts: array<f32, LOW_LANES * GATE_STRIDE>;
// [prediction, output][part][column]
var<workgroup> column_parts: array<f32, 2u * THREADS>;

// A thread's weights: of its rows of W_fb [turn][step] and of its row of W_gb.
struct LowWeights {
  rank: array<mat4x4<f32>, RANK_LOADS>,
  gate: array<mat4x4<f32>, GATE_STEPS>,
}

// Before the first barrier, so that they are under way beside the state: the head's rows of W_fb
// begin at row `rank_row`, 32 rows of W_gb at segment `gate_start`.
fn low_weights(thread: u32, rank_row: u32, gate_start: u32) -> LowWeights {
  let lane = thread % LOW_LANES;
  let column = thread / LOW_LANES;
  var result = LowWeights();
  // @unroll
  for (var turn = 0u; turn < RANK_TURNS; turn++) {
    let d = min(turn * RANK_ROWS + column, KEY_DIM - 1u);
    // @unroll
    for (var i = 0u; i < RANK_STEPS; i++) {
      let segment = min(lane + i * LOW_LANES, RANK_SEGMENTS - 1u);
      result.rank[turn * RANK_STEPS + i] =
        weights16((rank_row + d) * RANK_SEGMENTS + segment);
    }
  }
  if (column < 32u) {
    // @unroll
    for (var i = 0u; i < GATE_STEPS; i++) {
      let segment = min(lane + i * LOW_LANES, GATE_SEGMENTS - 1u);
      result.gate[i] = weights16(gate_start + column * GATE_SEGMENTS + segment);
    }
  }
  return result;
}

fn low_segment(segment: u32) -> mat4x4<f32> {
  let at = segment * LOW_STRIDE;
  return mat4x4<f32>(low[at], low[at + 1u], low[at + 2u], low[at + 3u]);
}

// Between two barriers, of which the first follows the stores to `low`.
fn leave_parts(thread: u32, w: LowWeights) {
  let lane = thread % LOW_LANES;
  let column = thread / LOW_LANES;
  // @unroll
  for (var turn = 0u; turn < RANK_TURNS; turn++) {
    var sum = 0.0;
    // @unroll
    for (var i = 0u; i < RANK_STEPS; i++) {
      let segment = lane + i * LOW_LANES;
      if (segment < RANK_SEGMENTS) {
        sum += low_product(w.rank[turn * RANK_STEPS + i], low_segment(segment));
      }
    }
    let d = turn * RANK_ROWS + column;
    if (d < KEY_DIM) {
      decay_parts[lane * DECAY_STRIDE + d] = sum;
    }
  }
  if (column < 32u) {
    var sum = 0.0;
    // @unroll
    for (var i = 0u; i < GATE_STEPS; i++) {
      let segment = lane + i * LOW_LANES;
      if (segment < GATE_SEGMENTS) {
        sum += low_product(w.gate[i], low_segment(RANK_SEGMENTS + segment));
      }
    }
    gate_parts[lane * GATE_STRIDE + column] = sum;
  }
}

fn decay_sum(d: u32) -> f32 {
  var sum = 0.0;
  // @unroll
  for (var l = 0u; l < LOW_LANES; l++) {
    sum += decay_parts[l * DECAY_STRIDE + d];
  }
  return sum;
}

fn gate_sum(column: u32) -> f32 {
  var sum = 0.0;
  // @unroll
  for (var l = 0u; l < LOW_LANES; l++) {
    sum += gate_parts[l * GATE_STRIDE + column];
  }
  return sum;
}

// `first`: 0 of predictions, THREADS of outputs.
fn column_sum(first: u32, column: u32) -> f32 {
  var sum = 0.0;
  // @unroll
  for (var p = 0u; p < PARTS; p++) {
    sum += column_parts[first + p * 32u + column];
  }
  return sum;
}
