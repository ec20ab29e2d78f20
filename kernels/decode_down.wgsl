// The second half of a mixture of experts for sequences with one row, and what the next block
// reads:
//   residual += sum over the choices of share (W_down h);  y = weight residual
//
//   x           activation groups [row_count][CHOICES][X_QUADS][groups] = h
//   chosen      [row_count][CHOICES] (expert, weight)
//   blocks      [matrices] blocks of [columns, width] (kernels/matrix.ts)
//   weight      f32 [columns], of the norm that follows
//   residual    f32 [rows][columns], from row_start on
//   groups_out  activation groups [row_count][X_QUADS][columns / 32], with the residual's squares
//   scaled      f32 [row_count][columns] = y
//   router      i32 [row_count][experts][3]: set to zero for the next layer
//
// One workgroup: 32 rows of W_down, one row of x. Each of CHOICE_PARTS parts has LANES threads a
// row; part p takes the choices p, p + CHOICE_PARTS, ... Loops: 3 experts / THREADS turns.

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
const CHOICE_PARTS: u32 = 1u;
// ceil(CHOICES / CHOICE_PARTS)
const PART_CHOICES: u32 = 1u;
const THREADS: u32 = 32u * LANES * CHOICE_PARTS;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> chosen: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> blocks: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> weight: array<f32>;
@group(0) @binding(5) var<storage, read_write> residual: array<f32>;
@group(0) @binding(6) var<storage, read_write> groups_out: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read_write> scaled: array<f32>;
@group(0) @binding(8) var<storage, read_write> router: array<i32>;

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.x % params.row_count;
  let tile = group.x / params.row_count;
  let pairs = row * CHOICES;
  // Loaded now, used in the end.
  let column = column_of(thread, row, tile);
  let part = thread / (32u * LANES);
  let lane = lane_of(thread);
  var product = 0.0;
  // @unroll
  for (var i = 0u; i < PART_CHOICES; i++) {
    let c = part + i * CHOICE_PARTS;
    if (c < CHOICES) {
      let pick = chosen[pairs + c];
      let block = block_of(
        pick.x * params.block_quads, params.columns, params.groups, params.scale_stride);
      let x_quads = array<u32, 1>((pairs + c) * params.groups * X_QUADS);
      let rows = WeightRows(tile * 32u + row_of(thread), 0u, 0u, params.columns - 1u);
      let sums = lane_products(block, rows, lane, x_quads);
      product = fma(bitcast<f32>(pick.y), sums[0], product);
    }
  }
  put_sum(part, lane, row_of(thread), product);
  workgroupBarrier();
  var sum = 0.0;
  if (column.used) {
    // @unroll
    for (var p = 0u; p < CHOICE_PARTS; p++) {
      sum += row_sum(p, thread);
    }
  }
  end_block(thread, tile, column, sum);
  if (tile == 0u) {
    for (var i = thread; i < 3u * params.experts; i += THREADS) {
      router[row * 3u * params.experts + i] = 0i;
    }
  }
}
