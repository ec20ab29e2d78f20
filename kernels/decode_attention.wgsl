// Attention of one row over the cached latents, in splits of the context: each split leaves its own
// softmax. Per head, over the positions j of a split:
//   s_j = scale (absorbed . entry_j);  m = max s;  l = sum exp(s_j - m);  z = sum exp(s_j - m) c_j
// An entry is read once for all heads.
//
//   absorbed  f32 quads [rows][head_count][quads], from row_start on
//   latents   quads [pages][page_tokens][quads] = c | p, lib/latent_*.wgsl
//   rows      u32 [rows][4]: sequence, position, slot, start of its pages; row_start + group.y
//   pages     u32 page numbers
//   sums      f32 quads [row_count][splits][head_count][value_quads] = z
//   maxima    f32 [row_count][splits][head_count][2] = m, l
//
// One workgroup: 4 HEAD_QUADS heads of one split of one row, POSITIONS positions at a time.
// Workgroups of a split are neighbours, so that its entries come out of a cache.
//   loading  thread = LANES position + lane: quads lane, lane + LANES, ... of one entry
//   scores   thread = HEAD_QUADS slice + four: quads slice, slice + 32, ... of four heads' queries,
//            which stay in registers; what is loaded from the tile serves 16 products
//   softmax  thread = heads position + head
//   z        thread = 64 eight + lane: quads lane, lane + 64, ... of eight heads
// Loops: positions / POSITIONS turns.

struct Params {
  row_start: u32,
  head_count: u32,
  quads: u32,
  value_quads: u32,
  page_tokens: u32,
  splits: u32,
  scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> absorbed: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> latents: array<latent_quad>;
@group(0) @binding(3) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> pages: array<u32>;
@group(0) @binding(5) var<storage, read_write> sums: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> maxima: array<f32>;

const HEADS: u32 = 4u * HEAD_QUADS;

@compute @workgroup_size(32u * HEAD_QUADS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let head_groups = (params.head_count + HEADS - 1u) / HEADS;
  let split = group.x / head_groups;
  let first_head = group.x % head_groups * HEADS;
  let row = rows[params.row_start + group.y];
  let size = split_tokens(row.y);
  let split_start = split * size;
  if (split_start > row.y) {
    return;
  }
  let split_end = min(split_start + size, row.y + 1u);
  let loaded = thread / LANES;
  let lane = thread % LANES;
  // Positions behind the split count with the weight 0; its last entry is loaded for them.
  var position = min(split_start + loaded, split_end - 1u);
  var page = pages[row.w + position / params.page_tokens];
  let slice = thread / HEAD_QUADS;
  let head_quad = thread % HEAD_QUADS;
  var query = array<vec4<f32>, 4u * QUAD_ROWS>();
  load_query(&query, params.row_start + group.y, first_head + 4u * head_quad, slice);
  var next = array<latent_quad, LOADS>();
  load_entry(&next, page, position, lane);
  position = min(split_start + POSITIONS + loaded, split_end - 1u);
  page = pages[row.w + position / params.page_tokens];

  let scored = thread / HEADS;
  let head = thread % HEADS;
  let eight = thread / 64u;
  // [64 quads][head]
  var z = array<vec4<f32>, 8u * VALUE_ROWS>();
  var maximum = LOWEST;
  // Of the positions that this thread has scored.
  var total = 0.0;
  for (var start = split_start; start < split_end; start += POSITIONS) {
    store_entry(&next, loaded, lane);
    workgroupBarrier();
    if (start + POSITIONS < split_end) {
      load_entry(&next, page, position, lane);
      position = min(start + 2u * POSITIONS + loaded, split_end - 1u);
      page = pages[row.w + position / params.page_tokens];
    }
    score_tile(&query, slice, head_quad);
    workgroupBarrier();
    var score = LOWEST;
    let counts = scored < POSITIONS && start + scored < split_end;
    if (scored < POSITIONS) {
      score = select(LOWEST, joined_score(scored, head) * params.scale, counts);
      scores[scored][head] = score;
    }
    workgroupBarrier();
    let before = maximum;
    // @unroll
    for (var p = 0u; p < POSITIONS; p++) {
      maximum = max(maximum, scores[p][head]);
    }
    let weight = select(0.0, exp(score - maximum), counts);
    let correction = select(exp(before - maximum), 0.0, start == split_start);
    total = fma(total, correction, weight);
    if (scored < POSITIONS) {
      weights[scored][head / 4u][head % 4u] = weight;
    }
    if (scored == 0u) {
      corrections[head / 4u][head % 4u] = correction;
    }
    workgroupBarrier();
    add_tile(&z, eight, thread % 64u);
    workgroupBarrier();
  }
  if (scored < POSITIONS) {
    scores[scored][head] = total;
  }
  let first = (group.y * params.splits + split) * params.head_count + first_head;
  // @unroll
  for (var h = 0u; h < 8u; h++) {
    let index = 8u * eight + h;
    if (first_head + index < params.head_count) {
      // @unroll
      for (var v = 0u; v < VALUE_ROWS; v++) {
        let quad = thread % 64u + 64u * v;
        if (quad < params.value_quads) {
          sums[(first + index) * params.value_quads + quad] = z[8u * v + h];
        }
      }
    }
  }
  workgroupBarrier();
  if (scored == 0u && first_head + head < params.head_count) {
    var all = 0.0;
    // @unroll
    for (var p = 0u; p < POSITIONS; p++) {
      all += scores[p][head];
    }
    maxima[2u * (first + head)] = maximum;
    maxima[2u * (first + head) + 1u] = all;
  }
}
