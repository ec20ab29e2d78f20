// Products of rows of a matrix with one row of activations, by LANES threads a row.
//
// Order of every sum: lane l adds the groups l, l + LANES, ... one after the other; the lanes are
// added in order. So a row has the same bits in any kernel that has as many lanes.
//
// Before it comes lib/q_rows.wgsl or lib/fp8_rows.wgsl, with Block and add_group. Loops: LOOPED /
// CHUNK turns. The constants are set by the host.

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

// A lane's sums for rows row, row + row_step, ... (none beyond row_last), x from quad x_quad on.
fn lane_products(
  block: Block, row: u32, row_step: u32, row_last: u32, lane: u32, x_quad: u32,
) -> array<f32, ROWS> {
  var sums = array<f32, ROWS>();
  for (var first = lane; first < LOOPED * LANES; first += CHUNK * LANES) {
    // @unroll
    for (var i = 0u; i < CHUNK; i++) {
      add_group(&sums, block, row, row_step, row_last, first + i * LANES, x_quad);
    }
  }
  // @unroll
  for (var i = 0u; i < TAIL; i++) {
    add_group(&sums, block, row, row_step, row_last, lane + (LOOPED + i) * LANES, x_quad);
  }
  // @unroll
  for (var i = 0u; i < REST; i++) {
    if (lane + (LOOPED + TAIL) * LANES < block.groups) {
      add_group(&sums, block, row, row_step, row_last, lane + (LOOPED + TAIL) * LANES, x_quad);
    }
  }
  return sums;
}
