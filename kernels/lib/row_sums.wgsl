// Who takes which lane of which row, and the lanes' sums, added in order. Eight lanes of a row are
// neighbours, so that rows share loads of x and each loads 128 bytes of its own; the padding puts
// what neighbours write and read at once into different banks.
//
// Constants of the host: LANES (lib/lane_rows.wgsl), a multiple of 8.

const TILE_ROWS: u32 = 32u;
// Sums of each row that are kept apart: parts.
const ROW_PARTS: u32 = 1u;
// Rows of one part that a thread takes.
const ROW_STEPS: u32 = 1u;
const PITCH: u32 = TILE_ROWS + 4u;
// Rows that a workgroup's threads begin at; each takes ROWS, so many apart.
const SLOT_ROWS: u32 = TILE_ROWS / ROW_STEPS;

var<workgroup> lane_sums: array<f32, ROW_PARTS * LANES * PITCH>;

fn row_of(thread: u32) -> u32 {
  return thread / 8u % SLOT_ROWS;
}

fn lane_of(thread: u32) -> u32 {
  return thread % 8u + thread / (8u * SLOT_ROWS) % (LANES / 8u) * 8u;
}

fn put_sum(part: u32, lane: u32, row: u32, sum: f32) {
  lane_sums[(part * LANES + lane) * PITCH + row] = sum;
}

// Behind a barrier.
fn row_sum(part: u32, row: u32) -> f32 {
  var total = 0.0;
  // @unroll
  for (var l = 0u; l < LANES; l++) {
    total += lane_sums[(part * LANES + l) * PITCH + row];
  }
  return total;
}
