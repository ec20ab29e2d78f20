// Products of rows of a matrix with X_ROWS rows of activations, by LANES threads a row of weights.
//
// Order of every sum: lane l adds the groups l, l + LANES, ... one after the other; the lanes are
// added in order. So a product has the same bits in any kernel that has as many lanes.
//
// Before it comes lib/q_rows.wgsl or lib/fp8_rows.wgsl, with Block and add_group. The kernel
// declares Params with row_count and groups. Loops: LOOPED / CHUNK turns. The constants are set by
// the host.

const LANES: u32 = 8u;
// Groups that every lane takes: LOOPED of them CHUNK at a time, whose loads are under way together
// (more would take registers from other workgroups), then TAIL without a loop. REST is 1 where the
// first lanes take one more.
const LOOPED: u32 = 0u;
const CHUNK: u32 = 1u;
const TAIL: u32 = 1u;
const REST: u32 = 0u;
// Rows of weights that one thread takes.
const ROWS: u32 = 1u;
// Rows of x for which it loads them once.
const X_ROWS: u32 = 1u;

// How many workgroups share the rows of x.
fn row_groups() -> u32 {
  return (params.row_count + X_ROWS - 1u) / X_ROWS;
}

// First quads of rows first, first + 1, ... of x; of the last row where there are no more.
fn x_quads_of(first: u32) -> array<u32, X_ROWS> {
  var quads = array<u32, X_ROWS>();
  // @unroll
  for (var j = 0u; j < X_ROWS; j++) {
    quads[j] = min(first + j, params.row_count - 1u) * params.groups * X_QUADS;
  }
  return quads;
}

// Rows of weights of a thread: row, row + step, row + far_step, row + far_step + step, row + 2
// far_step, ...; none beyond `last`.
struct WeightRows {
  row: u32,
  step: u32,
  far_step: u32,
  last: u32,
}

fn weight_row(rows: WeightRows, r: u32) -> u32 {
  return min(rows.row + r % 2u * rows.step + r / 2u * rows.far_step, rows.last);
}

// A lane's sums [ROWS][X_ROWS].
fn lane_products(
  block: Block, rows: WeightRows, lane: u32, x_quads: array<u32, X_ROWS>,
) -> array<f32, ROWS * X_ROWS> {
  var sums = array<f32, ROWS * X_ROWS>();
  for (var first = lane; first < LOOPED * LANES; first += CHUNK * LANES) {
    // @unroll
    for (var i = 0u; i < CHUNK; i++) {
      add_group(&sums, block, rows, first + i * LANES, x_quads);
    }
  }
  // @unroll
  for (var i = 0u; i < TAIL; i++) {
    add_group(&sums, block, rows, lane + (LOOPED + i) * LANES, x_quads);
  }
  // @unroll
  for (var i = 0u; i < REST; i++) {
    if (lane + (LOOPED + TAIL) * LANES < block.groups) {
      add_group(&sums, block, rows, lane + (LOOPED + TAIL) * LANES, x_quads);
    }
  }
  return sums;
}
