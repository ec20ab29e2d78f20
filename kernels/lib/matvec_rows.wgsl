// Products of 8 rows of a weight matrix with 4 rows of x, by a workgroup of 128 threads.
//
// Order of every sum, the same as in lib/matmul_tile.wgsl, so that both give the same bits:
// the columns are cut into segments of 16; lane l of 32 adds segments l, l + 32, ... element by
// element; the lanes are added in order.
//
// The kernel declares weights, scales, x (f32 [..][x_stride]), Params with segments
// (ceil(columns / 16)), weight_segments (from one stored row to the next), columns, weight_rows,
// row_start, x_stride, and fn x_row(position).
// Loops: segments / 32 turns.

const LANES: u32 = 32u;
const SEGMENT: u32 = 16u;
const THREADS: u32 = 128u;
const GROUP_ROWS: u32 = 8u;

// [lane][17 of 16 columns], each 4 rows of x; the 17th keeps lanes in different banks.
var<workgroup> x_tile: array<vec4<f32>, 544>;
// [weight row][33 of 32 lanes], each 4 rows of x.
var<workgroup> lane_sums: array<vec4<f32>, 264>;

// The sums for positions [x_start, x_start + 4) (zero from x_end on) and row first_row + thread of
// the part's matrix `local_matrix`, which is matrix `matrix` of the tensor. Valid for threads < 8.
fn row_products(
  thread: u32, local_matrix: u32, matrix: u32, first_row: u32, x_start: u32, x_end: u32,
) -> vec4<f32> {
  let lane = thread % LANES;
  let row0 = min(first_row + 2u * (thread / LANES), params.weight_rows - 1u);
  let row1 = min(row0 + 1u, params.weight_rows - 1u);
  let start0 = (local_matrix * params.weight_rows + row0) * params.weight_segments;
  let start1 = (local_matrix * params.weight_rows + row1) * params.weight_segments;
  let last = x_end - 1u;
  let x_rows = vec4(
    x_row(x_start), x_row(min(x_start + 1u, last)),
    x_row(min(x_start + 2u, last)), x_row(min(x_start + 3u, last)));
  let used = vec4(x_start) + vec4(0u, 1u, 2u, 3u) < vec4(x_end);
  var sum0 = vec4(0.0);
  var sum1 = vec4(0.0);
  for (var first = 0u; first < params.segments; first += LANES) {
    let segment = first + lane;
    var w0 = mat4x4<f32>();
    var w1 = mat4x4<f32>();
    if (segment < params.segments) {
      w0 = scaled16(weights16(start0 + segment), matrix, params.row_start + row0, segment);
      w1 = scaled16(weights16(start1 + segment), matrix, params.row_start + row1, segment);
    }
    workgroupBarrier();
    // @unroll
    for (var i = 0u; i < 4u; i++) {
      let at = thread + i * THREADS;
      let column = first * SEGMENT + at;
      x_tile[at / SEGMENT * 17u + at % SEGMENT] = load_x(x_rows, used, column);
    }
    workgroupBarrier();
    if (segment < params.segments) {
      // @unroll
      for (var i = 0u; i < 16u; i++) {
        let value = x_tile[lane * 17u + i];
        sum0 = fma(vec4(w0[i / 4u][i % 4u]), value, sum0);
        sum1 = fma(vec4(w1[i / 4u][i % 4u]), value, sum1);
      }
    }
  }
  lane_sums[thread / LANES * 66u + lane] = sum0;
  lane_sums[thread / LANES * 66u + 33u + lane] = sum1;
  workgroupBarrier();
  var total = vec4(0.0);
  if (thread < GROUP_ROWS) {
    // @unroll
    for (var i = 0u; i < 32u; i++) {
      total += lane_sums[thread * 33u + i];
    }
  }
  return total;
}

// Column `column` of 4 rows of x; zero beyond the last column and for unused rows, whatever is
// there.
fn load_x(x_rows: vec4<u32>, used: vec4<bool>, column: u32) -> vec4<f32> {
  var value = vec4(0.0);
  if (column < params.columns) {
    // @unroll
    for (var i = 0u; i < 4u; i++) {
      if (used[i]) {
        value[i] = x[x_rows[i] * params.x_stride + column];
      }
    }
  }
  return value;
}
