// Sorts (row, choice) pairs by expert and cuts each expert's pairs into tiles of tile_size.
// Within an expert pairs keep their order, so the result is the same every time.
//
//   experts     u32 [pair_count]: the expert of each pair; pair = row x choices + choice
//   order       u32 [pair_count]: pairs by expert, then by number
//   tiles       [tile_limit] (expert, start, end, 0): positions [start, end) of `order`; unused
//               tiles at the end are zero
//   expert_use  u32 [..]: pairs routed to each expert are added from use_offset on
//
// One workgroup: one expert.
// Loops: 2 pair_count / 128 + 2 (EXPERTS + tile_limit) / 128 + 142 turns.

struct Params {
  pair_count: u32,
  tile_size: u32,
  tile_limit: u32,
  use_offset: u32,
}

override EXPERTS: u32 = 1u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> experts: array<u32>;
@group(0) @binding(2) var<storage, read_write> order: array<u32>;
@group(0) @binding(3) var<storage, read_write> tiles: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> expert_use: array<u32>;

const THREADS: u32 = 128u;

// Pairs of each expert.
var<workgroup> counts: array<atomic<u32>, EXPERTS>;
// Pairs of this workgroup's expert in each thread's slice of the pairs.
var<workgroup> slice_counts: array<u32, 128>;
// (pairs, tiles) of the experts before this one; the sum is in element 0 in the end.
var<workgroup> preceding: array<vec2<u32>, 128>;

fn tile_count(pairs: u32) -> u32 {
  return (pairs + params.tile_size - 1u) / params.tile_size;
}

// (first position, first tile) of `expert`.
fn start_of(expert: u32, thread: u32) -> vec2<u32> {
  var sum = vec2(0u);
  for (var e = thread; e < expert; e += THREADS) {
    let pairs = atomicLoad(&counts[e]);
    sum += vec2(pairs, tile_count(pairs));
  }
  preceding[thread] = sum;
  workgroupBarrier();
  for (var width = THREADS / 2u; width > 0u; width /= 2u) {
    if (thread < width) {
      preceding[thread] += preceding[thread + width];
    }
    workgroupBarrier();
  }
  return preceding[0];
}

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let expert = group.x;
  let slice = (params.pair_count + THREADS - 1u) / THREADS;
  let slice_start = min(thread * slice, params.pair_count);
  let slice_end = min(slice_start + slice, params.pair_count);
  var own = 0u;
  for (var pair = slice_start; pair < slice_end; pair++) {
    let chosen = experts[pair];
    atomicAdd(&counts[chosen], 1u);
    own += select(0u, 1u, chosen == expert);
  }
  slice_counts[thread] = own;
  workgroupBarrier();
  let start = start_of(expert, thread);
  let count = atomicLoad(&counts[expert]);
  let tiles_end = start.y + tile_count(count);
  for (var tile = start.y + thread; tile < tiles_end; tile += THREADS) {
    let first = start.x + (tile - start.y) * params.tile_size;
    tiles[tile] = vec4(expert, first, min(first + params.tile_size, start.x + count), 0u);
  }
  if (expert == EXPERTS - 1u) {
    for (var tile = tiles_end + thread; tile < params.tile_limit; tile += THREADS) {
      tiles[tile] = vec4(0u);
    }
  }
  var position = start.x;
  for (var t = 0u; t < thread; t++) {
    position += slice_counts[t];
  }
  for (var pair = slice_start; pair < slice_end; pair++) {
    if (experts[pair] == expert) {
      order[position] = pair;
      position++;
    }
  }
  if (thread == 0u) {
    expert_use[params.use_offset + expert] += count;
  }
}
