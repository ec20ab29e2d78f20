// Sums that the threads of decode_kda_step.wgsl share: products with the low ranks, squares of q
// and k, columns of the state.

// Threads of a column; key channels of each.
const PARTS: u32 = 4u;
const KEY_PART: u32 = 32u;
const KEY_DIM: u32 = PARTS * KEY_PART;
const THREADS: u32 = 32u * PARTS;
// Segments of 16 columns in a row of W_fb and of W_gb.
const RANK_SEGMENTS: u32 = 1u;
const GATE_SEGMENTS: u32 = 1u;
// Threads of a row of W_fb, neighbours; rows at once; turns; segments of a thread. A row of W_gb
// has PARTS threads.
const RANK_LANES: u32 = 1u;
const RANK_ROWS: u32 = THREADS / RANK_LANES;
const RANK_TURNS: u32 = 1u;
const RANK_STEPS: u32 = 1u;
const GATE_STEPS: u32 = 1u;

var<workgroup> q: array<f32, KEY_DIM>;
var<workgroup> k: array<f32, KEY_DIM>;
var<workgroup> r: array<f32, KEY_DIM>;
// f, then g.
var<workgroup> low: array<vec4<f32>, 4u * (RANK_SEGMENTS + GATE_SEGMENTS)>;
// [turn][lane][row], [lane][column]; rows of one more, so that neighbours write to other banks.
var<workgroup> decay_parts: array<f32, RANK_TURNS * RANK_LANES * (RANK_ROWS + 1u)>;
var<workgroup> gate_parts: array<f32, PARTS * 33u>;
// [q, k] eight each.
var<workgroup> square_parts: array<f32, 16>;
// [part][column]
var<workgroup> column_parts: array<f32, THREADS>;

// Segment `segment` of the float weights times segment `x` of `low`.
fn segment_product(segment: u32, x: u32) -> f32 {
  let w = weights16(segment);
  return (dot(w[0], low[4u * x]) + dot(w[1], low[4u * x + 1u])) +
    (dot(w[2], low[4u * x + 2u]) + dot(w[3], low[4u * x + 3u]));
}

// Before a barrier: products of the head's rows of W_fb, which begin at row `rank_row`, and of 32
// rows of W_gb from segment `gate_start` on; squares of q and k.
fn leave_parts(thread: u32, rank_row: u32, gate_start: u32) {
  let lane = thread % RANK_LANES;
  // @unroll
  for (var turn = 0u; turn < RANK_TURNS; turn++) {
    let d = turn * RANK_ROWS + thread / RANK_LANES;
    var sum = 0.0;
    // @unroll
    for (var i = 0u; i < RANK_STEPS; i++) {
      let segment = lane + i * RANK_LANES;
      if (d < KEY_DIM && segment < RANK_SEGMENTS) {
        sum += segment_product((rank_row + d) * RANK_SEGMENTS + segment, segment);
      }
    }
    decay_parts[(turn * RANK_LANES + lane) * (RANK_ROWS + 1u) + thread / RANK_LANES] = sum;
  }
  var gate = 0.0;
  // @unroll
  for (var i = 0u; i < GATE_STEPS; i++) {
    let segment = thread % PARTS + i * PARTS;
    if (segment < GATE_SEGMENTS) {
      gate += segment_product(
        gate_start + thread / PARTS * GATE_SEGMENTS + segment, RANK_SEGMENTS + segment);
    }
  }
  gate_parts[thread % PARTS * 33u + thread / PARTS] = gate;
  if (thread < 16u) {
    var sum = 0.0;
    for (var d = thread % 8u; d < KEY_DIM; d += 8u) {
      let value = select(k[d], q[d], thread < 8u);
      sum = fma(value, value, sum);
    }
    square_parts[thread] = sum;
  }
}

fn decay_sum(d: u32) -> f32 {
  let at = d / RANK_ROWS * RANK_LANES * (RANK_ROWS + 1u) + d % RANK_ROWS;
  var sum = 0.0;
  // @unroll
  for (var l = 0u; l < RANK_LANES; l++) {
    sum += decay_parts[at + l * (RANK_ROWS + 1u)];
  }
  return sum;
}

fn gate_sum(column: u32) -> f32 {
  var sum = 0.0;
  // @unroll
  for (var l = 0u; l < PARTS; l++) {
    sum += gate_parts[l * 33u + column];
  }
  return sum;
}

// Of q (0) or k (1).
fn squares_of(which: u32) -> f32 {
  var sum = 0.0;
  // @unroll
  for (var i = 0u; i < 8u; i++) {
    sum += square_parts[which * 8u + i];
  }
  return sum;
}

fn column_sum(column: u32) -> f32 {
  var sum = 0.0;
  // @unroll
  for (var p = 0u; p < PARTS; p++) {
    sum += column_parts[p * 32u + column];
  }
  return sum;
}
