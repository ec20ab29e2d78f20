// Products of 64 rows of a weight matrix with TILE_ROWS rows of x, by a workgroup of 4 TILE_ROWS
// threads, 4 x 4 products a thread.
//
// Order of every sum, the same as in lib/matvec_rows.wgsl, so that both give the same bits:
// the columns are cut into segments of 16; lane l of 32 adds segments l, l + 32, ... element by
// element; the lanes are added in order.
//
// The kernel declares weights, scales, x (f32 [..][x_stride]), Params with segments
// (ceil(columns / 16)), weight_segments (from one stored row to the next), columns, weight_rows,
// row_start, x_stride, and fn x_row(position).
// Loops: 32 + segments turns.

const LANES: u32 = 32u;
const SEGMENT: u32 = 16u;
const TILE_COLUMNS: u32 = 64u;
override TILE_ROWS: u32 = 64u;
override THREADS: u32 = 256u;

// [row][5 of 4 quads of columns]; the 5th keeps rows in different banks.
var<workgroup> x_tile: array<vec4<f32>, 5u * TILE_ROWS>;
var<workgroup> w_tile: array<vec4<f32>, 320>;

// Thread t's products: column i of the result is position x_start + 4 (t / 16) + i (zero from x_end
// on), component j is row first_row + t % 16 + 16 j of the part's matrix `local_matrix`, which is
// matrix `matrix` of the tensor.
fn tile_products(
  thread: u32, local_matrix: u32, matrix: u32, first_row: u32, x_start: u32, x_end: u32,
) -> mat4x4<f32> {
  // Loading: thread t brings quad t % 4 of x row t / 4; threads < 64 bring a row of weights each.
  let x_position = x_start + thread / 4u;
  let x_used = x_position < x_end;
  let x_from = x_row(min(x_position, x_end - 1u)) * params.x_stride;
  let weight_row = min(first_row + thread, params.weight_rows - 1u);
  let weight_start = (local_matrix * params.weight_rows + weight_row) * params.weight_segments;
  var total = mat4x4<f32>();
  for (var lane = 0u; lane < LANES; lane++) {
    var sum = mat4x4<f32>();
    for (var segment = lane; segment < params.segments; segment += LANES) {
      let column = segment * SEGMENT + 4u * (thread % 4u);
      let value = load_x4(x_from, x_used, column);
      var w = mat4x4<f32>();
      if (thread < TILE_COLUMNS) {
        w = scaled16(
          weights16(weight_start + segment), matrix, params.row_start + weight_row, segment);
      }
      workgroupBarrier();
      x_tile[thread / 4u * 5u + thread % 4u] = value;
      if (thread < TILE_COLUMNS) {
        // @unroll
        for (var i = 0u; i < 4u; i++) {
          w_tile[thread * 5u + i] = w[i];
        }
      }
      workgroupBarrier();
      sum = add_segment(sum, thread);
    }
    total += sum;
  }
  return total;
}

// sum + the products of the 16 columns in the tiles, one column after the other.
fn add_segment(before: mat4x4<f32>, thread: u32) -> mat4x4<f32> {
  var sum = before;
  // @unroll
  for (var quad = 0u; quad < 4u; quad++) {
    // w[c]: column c of the quad, 4 rows of weights.
    let w = transpose(mat4x4<f32>(
      w_tile[(thread % 16u) * 5u + quad],
      w_tile[(thread % 16u + 16u) * 5u + quad],
      w_tile[(thread % 16u + 32u) * 5u + quad],
      w_tile[(thread % 16u + 48u) * 5u + quad]));
    // @unroll
    for (var i = 0u; i < 4u; i++) {
      let value = x_tile[(thread / 16u * 4u + i) * 5u + quad];
      sum[i] = fma(vec4(value.x), w[0], sum[i]);
      sum[i] = fma(vec4(value.y), w[1], sum[i]);
      sum[i] = fma(vec4(value.z), w[2], sum[i]);
      sum[i] = fma(vec4(value.w), w[3], sum[i]);
    }
  }
  return sum;
}

// Columns [column, column + 4) of the row of x that begins at `start`; zero beyond the last column
// and for unused rows, whatever is there.
fn load_x4(start: u32, used: bool, column: u32) -> vec4<f32> {
  var value = vec4(0.0);
  if (used) {
    // @unroll
    for (var i = 0u; i < 4u; i++) {
      if (column + i < params.columns) {
        value[i] = x[start + column + i];
      }
    }
  }
  return value;
}
