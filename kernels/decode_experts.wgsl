// The first half of a feed-forward block, as decode_up.wgsl computes it, for several rows whose
// experts are chosen already: a workgroup takes up to X_ROWS rows of one matrix and reads it once.
//
//   x           activation groups [rows][X_QUADS][groups] of weight residual
//   order       u32 pairs by expert; pair = row x choices + choice; anything where not GROUPED
//   items       (expert, start, end, 0): positions [start, end) of `order`, at most X_ROWS; or
//               zeros; anything where not GROUPED
//   blocks      [matrices] blocks of gate | up [2 width, columns] each (kernels/matrix.ts)
//   groups_out  activation groups [pairs][X_QUADS][width / 32] of h
//
// One workgroup: TILE_ROWS channels of one item, LANES threads for ROWS / 2 channels.
// Loops: X_ROWS groups / (LANES TILE_ROWS) + groups / (CHUNK LANES) + 2 turns.

struct Params {
  row_count: u32,
  groups: u32,
  columns: u32,
  epsilon: f32,
  width: u32,
  block_quads: u32,
  scale_stride: u32,
  tiles: u32,
  items: u32,
  choices: u32,
  even_first: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> order: array<u32>;
@group(0) @binding(3) var<storage, read> items: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> blocks: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> groups_out: array<vec4<u32>>;

// 0: all rows meet the one matrix, a row is a pair.
const GROUPED: u32 = 1u;

fn item_of(index: u32) -> vec4<u32> {
  if (index >= params.items) {
    return vec4(0u);
  }
  if (GROUPED == 0u) {
    return vec4(0u, index * X_ROWS, min((index + 1u) * X_ROWS, params.row_count), 0u);
  }
  return items[index];
}

fn pair_at(position: u32) -> u32 {
  if (GROUPED == 0u) {
    return position;
  }
  return order[position];
}

// A multiple of TILE_ROWS.
const THREADS: u32 = SLOT_ROWS * LANES;
// X_ROWS TILE_ROWS / THREADS
const OUTPUT_TURNS: u32 = 1u;

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = group.y * groups.x + group.x;
  let item = item_of(index / params.tiles);
  if (item.y == item.z) {
    return;
  }
  let tile = index % params.tiles;
  var x_quads = array<u32, X_ROWS>();
  // @unroll
  for (var j = 0u; j < X_ROWS; j++) {
    let pair = pair_at(min(item.y + j, item.z - 1u));
    x_quads[j] = pair / params.choices * params.groups * X_QUADS;
  }
  gather_squares(thread, x_quads, params.groups);
  leave_gated(item.x, tile, thread, x_quads);
  workgroupBarrier();
  // @unroll
  for (var turn = 0u; turn < OUTPUT_TURNS; turn++) {
    let j = (turn * THREADS + thread) / TILE_ROWS;
    let column = thread % TILE_ROWS;
    let used = item.y + j < item.z && tile * TILE_ROWS + column < params.width;
    var h = 0.0;
    var pair = 0u;
    if (used) {
      h = gated(j, column, row_factor(j, params.columns, params.epsilon));
      pair = pair_at(item.y + j);
    }
    let place = group_place(pair, (tile * TILE_ROWS + column) / 32u, params.width / 32u);
    store_group(thread, used, h, 0.0, place, params.even_first != 0u);
    workgroupBarrier();
  }
}
