// The second half of a mixture of experts for sequences with one row, and what the next block
// reads:
//   residual += sum over the choices of share (W_down h);  y = weight residual
//
//   x           activation groups [row_count][CHOICES][groups][3 quads] = h
//   chosen      [row_count][CHOICES] (expert, weight)
//   blocks      [matrices] blocks of [columns, width] (kernels/matrix.ts)
//   weight      f32 [columns], of the norm that follows
//   residual    f32 [rows][columns], from row_start on
//   groups_out  activation groups [row_count][columns / 32][3 quads], with the residual's squares
//   scaled      f32 [row_count][columns] = y
//   router      i32 [row_count][experts][3]: set to zero for the next layer
//
// One workgroup: 32 rows of W_down, LANES threads each, one row of x.
// Loops: (CHOICES + 3 experts) / LANES turns at most.

struct Params {
  row_count: u32,
  row_start: u32,
  groups: u32,
  columns: u32,
  block_quads: u32,
  scale_stride: u32,
  experts: u32,
  even_first: u32,
}

const CHOICES: u32 = 1u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> chosen: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> blocks: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> weight: array<f32>;
@group(0) @binding(5) var<storage, read_write> residual: array<f32>;
@group(0) @binding(6) var<storage, read_write> groups_out: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read_write> scaled: array<f32>;
@group(0) @binding(8) var<storage, read_write> router: array<i32>;

// [choice][32 rows][lane], then [choice][32 rows].
var<workgroup> lane_sums: array<f32, 32u * LANES * CHOICES>;
var<workgroup> shares: array<f32, 32u * CHOICES>;

@compute @workgroup_size(32u * LANES)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.x % params.row_count;
  let tile = group.x / params.row_count;
  let pairs = row * CHOICES;
  // Loaded now, used in the end.
  let column = column_of(thread, row, tile);
  // @unroll
  for (var c = 0u; c < CHOICES; c++) {
    let block = block_of(chosen[pairs + c].x * params.block_quads, params.columns, params.groups,
      params.scale_stride);
    let sums = lane_products(block, tile * 32u + thread / LANES, 0u, params.columns - 1u,
      thread % LANES, (pairs + c) * params.groups * 3u);
    lane_sums[c * 32u * LANES + thread] = sums[0];
  }
  workgroupBarrier();
  for (var i = thread; i < 32u * CHOICES; i += 32u * LANES) {
    var total = 0.0;
    // @unroll
    for (var l = 0u; l < LANES; l++) {
      total += lane_sums[i * LANES + l];
    }
    shares[i] = bitcast<f32>(chosen[pairs + i / 32u].y) * total;
  }
  workgroupBarrier();
  var sum = 0.0;
  if (column.used) {
    // @unroll
    for (var c = 0u; c < CHOICES; c++) {
      sum += shares[c * 32u + thread];
    }
  }
  end_block(thread, row, tile, column, sum);
  if (tile == 0u) {
    for (var i = thread; i < 3u * params.experts; i += 32u * LANES) {
      router[row * 3u * params.experts + i] = 0i;
    }
  }
}
