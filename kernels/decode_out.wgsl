// The projection that ends a mixer or a dense block, for sequences with one row, and what the next
// block reads:
//   residual += W x;  y = weight residual in activation groups, and as f32
//   router[e] += sum over c of R[e][c] y[c], where a mixture of experts follows
// Where x comes from KDA, a head's groups still lack the factor 1 / sqrt(mean(o^2) + epsilon).
//
//   x           activation groups [row_count][X_QUADS][groups]
//   blocks      W, one block (kernels/matrix.ts)
//   weight      f32 [columns], of the norm that follows
//   weights     R, float rows [experts][segments]; anything where experts is 0
//   residual    f32 [rows][columns], from row_start on
//   groups_out  activation groups [row_count][X_QUADS][columns / 32], with the residual's squares
//   scaled      f32 [row_count][columns] = y
//   router      i32 [row_count][experts][3 limbs]: sums of lib/limbs.wgsl; integers, so that the
//               order in which workgroups come does not matter
//
// One workgroup: 32 rows of W, LANES threads for ROWS of them, X_ROWS rows of x. Loops: experts /
// THREADS turns.

struct Params {
  row_count: u32,
  row_start: u32,
  groups: u32,
  columns: u32,
  scale_stride: u32,
  head_dim: u32,
  epsilon: f32,
  experts: u32,
  segments: u32,
  even_first: u32,
}

// Groups of a head whose squares make its norm; 0 where there is none.
const HEAD_GROUPS: u32 = 0u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> blocks: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> residual: array<f32>;
@group(0) @binding(6) var<storage, read_write> groups_out: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read_write> scaled: array<f32>;
@group(0) @binding(8) var<storage, read_write> router: array<atomic<i32>>;

fn x_scale(quad: u32, info: vec4<u32>) -> f32 {
  let scale = bitcast<f32>(info.x);
  if (HEAD_GROUPS == 0u) {
    return scale;
  }
  // Rows have whole heads, so that the place tells which group of its head it is.
  let first = quad - quad % max(HEAD_GROUPS, 1u);
  var squares = 0.0;
  // @unroll
  for (var i = 0u; i < HEAD_GROUPS; i++) {
    squares += bitcast<f32>(x[first + i].z);
  }
  return scale / sqrt(squares / f32(params.head_dim) + params.epsilon);
}

// The product of 32 columns of a router's row with the values of a group from `start` on.
fn logit_of(head: mat4x4<f32>, tail: mat4x4<f32>, start: u32) -> f32 {
  var logit = 0.0;
  // @unroll
  for (var i = 0u; i < 16u; i++) {
    logit = fma(head[i / 4u][i % 4u], group_values[start + i].x, logit);
  }
  // @unroll
  for (var i = 0u; i < 16u; i++) {
    logit = fma(tail[i / 4u][i % 4u], group_values[start + 16u + i].x, logit);
  }
  return logit;
}

fn add_logit(row: u32, expert: u32, logit: f32) {
  if (row < params.row_count) {
    let limbs = limbs_of(logit);
    let sum = (row * params.experts + expert) * 3u;
    atomicAdd(&router[sum], limbs.x);
    atomicAdd(&router[sum + 1u], limbs.y);
    atomicAdd(&router[sum + 2u], limbs.z);
  }
}

const THREADS: u32 = SLOT_ROWS * LANES;

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let first_row = group.x % row_groups() * X_ROWS;
  let tile = group.x / row_groups();
  let block = block_of(0u, params.columns, params.groups, params.scale_stride);
  let lane = lane_of(thread);
  // Loaded now, used in the end.
  let column = column_of(thread, first_row, tile);
  let first_segment = min(thread, max(params.experts, 1u) - 1u) * params.segments + 2u * tile;
  var router_head = mat4x4<f32>();
  var router_tail = mat4x4<f32>();
  if (params.experts > 0u) {
    router_head = weights16(first_segment);
    router_tail = weights16(first_segment + 1u);
  }
  let rows = WeightRows(
    tile * 32u + row_of(thread), SLOT_ROWS, 2u * SLOT_ROWS, params.columns - 1u);
  let sums = lane_products(block, rows, lane, x_quads_of(first_row));
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    // @unroll
    for (var j = 0u; j < X_ROWS; j++) {
      put_sum(j, lane, row_of(thread) + r * SLOT_ROWS, sums[r * X_ROWS + j]);
    }
  }
  workgroupBarrier();
  var total = 0.0;
  if (column.used) {
    total = row_sum(thread / 32u, thread % 32u);
  }
  end_block(thread, tile, column, total);
  for (var e = thread; e < params.experts; e += THREADS) {
    if (e != thread) {
      router_head = weights16(e * params.segments + 2u * tile);
      router_tail = weights16(e * params.segments + 2u * tile + 1u);
    }
    // @unroll
    for (var j = 0u; j < X_ROWS; j++) {
      add_logit(first_row + j, e, logit_of(router_head, router_tail, 32u * j));
    }
  }
}
