// Attention of many rows of one sequence over one block of its context, in the expanded form: per
// row and head, over positions j <= the row's position in the block,
//   s_j = scale (qn . kn_j + qp . p_j);  o = sum exp(s_j - m) v_j / l;  l = sum exp(s_j - m)
// joined with what the blocks before left in o, m and l.
//
//   queries   f32 [rows][head_count][nope_dim + shared_key_dim] = qn | qp
//   expanded  f32 [block_count][head_count][nope_dim + value_dim] = kn | v
//   entries   f32 [block_count][entry_stride] = c | p; p begins at latent_dim
//   o         f32 [rows][head_count][value_dim]
//   maxima    f32 [rows][head_count][2] = m, l
//
// Rows [row_start, + row_count) have the positions from `past` on. One workgroup: 64 rows, one
// head; thread = 16 lane group + lane takes 8 rows. Tiles of 64 positions begin at multiples of 64,
// and a tile beyond a row's position leaves the row's bits as they are, so a row's result does not
// depend on the rows beside it. Lane l has scores of positions 4 l .. 4 l + 3 and value quads l,
// l + 16, ... The tiles' products are in lib/mla_tile.wgsl, the rows' softmax in
// lib/mla_rows.wgsl.
// Loops a tile: (nope_dim + shared_key_dim) / 16 + 4 + 70 turns.

struct Params {
  row_start: u32,
  row_count: u32,
  past: u32,
  block_start: u32,
  block_count: u32,
  head_count: u32,
  nope_dim: u32,
  shared_key_dim: u32,
  value_dim: u32,
  latent_dim: u32,
  entry_stride: u32,
  scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> queries: array<f32>;
@group(0) @binding(2) var<storage, read> expanded: array<f32>;
@group(0) @binding(3) var<storage, read> entries: array<f32>;
@group(0) @binding(4) var<storage, read_write> o: array<f32>;
@group(0) @binding(5) var<storage, read_write> maxima: array<f32>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let head = group.y;
  // The last rows have most to do and come first.
  let first = (groups.x - 1u - group.x) * 64u;
  let count = min(64u, params.row_count - first);
  let end = min(params.block_start + params.block_count, params.past + first + count);
  if (end <= params.block_start) {
    return;
  }
  let lane = thread % 16u;
  let row_head = (params.row_start + first) * params.head_count + head;
  if (thread < 64u) {
    let at = 2u * (row_head + min(thread, count - 1u) * params.head_count);
    let fresh = params.block_start == 0u;
    row_maxima[thread] = select(maxima[at], LOWEST, fresh);
    row_sums[thread] = select(maxima[at + 1u], 0.0, fresh);
  }
  workgroupBarrier();
  var acc = array<vec4<f32>, 32>();
  if (params.block_start > 0u) {
    // @unroll
    for (var i = 0u; i < 8u; i++) {
      let row = thread / 16u + 8u * i;
      // @unroll
      for (var quad = 0u; quad < VALUE_QUADS; quad++) {
        acc[4u * i + quad] = load_output(row_head, min(row, count - 1u), lane + 16u * quad)
          * row_sums[row];
      }
    }
  }
  for (var start = params.block_start; start < end; start += 64u) {
    var scores = score_tile(thread, row_head, count, head, start);
    // @unroll
    for (var i = 0u; i < 8u; i++) {
      let row = thread / 16u + 8u * i;
      let last = params.past + first + min(row, count - 1u);
      let seen = vec4(start + 4u * lane) + vec4(0u, 1u, 2u, 3u) <= vec4(last);
      scores[i] = select(vec4(LOWEST), scores[i] * params.scale, seen);
      let pair = max(scores[i].xy, scores[i].zw);
      lane_parts[lane * 64u + row] = max(pair.x, pair.y);
    }
    workgroupBarrier();
    if (thread < 64u) {
      join_maxima(thread);
    }
    workgroupBarrier();
    // @unroll
    for (var i = 0u; i < 8u; i++) {
      let row = thread / 16u + 8u * i;
      let weights = select(exp(scores[i] - row_maxima[row]), vec4(0.0), scores[i] == vec4(LOWEST));
      weight_tile[lane * 64u + row] = weights;
      lane_parts[lane * 64u + row] = (weights.x + weights.y) + (weights.z + weights.w);
      // @unroll
      for (var quad = 0u; quad < VALUE_QUADS; quad++) {
        acc[4u * i + quad] *= row_corrections[row];
      }
    }
    workgroupBarrier();
    if (thread < 64u) {
      join_sums(thread);
    }
    add_values(thread, head, start, end, &acc);
  }
  // @unroll
  for (var i = 0u; i < 8u; i++) {
    let row = thread / 16u + 8u * i;
    if (row < count && params.past + first + row >= params.block_start) {
      // @unroll
      for (var quad = 0u; quad < VALUE_QUADS; quad++) {
        let values = acc[4u * i + quad] / row_sums[row];
        store_output(row_head, row, lane + 16u * quad, values);
      }
      if (lane == 0u) {
        let at = 2u * (row_head + row * params.head_count);
        maxima[at] = row_maxima[row];
        maxima[at + 1u] = row_sums[row];
      }
    }
  }
}
