// Attention of one row over the cached latents, in splits of the context: each split leaves its own
// softmax. Per head, over the positions j of a split:
//   s_j = scale (absorbed . entry_j);  m = max s;  l = sum exp(s_j - m);  z = sum exp(s_j - m) c_j
// An entry is read once for all heads.
//
//   absorbed  f32 quads [rows][head_count][quads], from row_start on
//   latents   quads [pages][page_tokens][quads] = c | p, lib/latent_*.wgsl
//   rows      u32 [rows][4]: sequence, position, slot, start of its pages; row_start + group.y
//   pages     u32 page numbers
//   sums      f32 quads [row_count][SPLITS][head_count][value_quads] = z
//   maxima    f32 [row_count][SPLITS][head_count][2] = m, l
//
// One workgroup: 32 heads of one split of one row, 8 positions at a time. For the scores thread
// 32 slice + head holds a slice of its head's query; for z thread 32 slice + lane holds the quads
// lane, lane + 32, ... of HEADS heads from HEADS slice on. Loops: positions / 8 turns.

struct Params {
  row_start: u32,
  head_count: u32,
  quads: u32,
  value_quads: u32,
  page_tokens: u32,
  scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> absorbed: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> latents: array<latent_quad>;
@group(0) @binding(3) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> pages: array<u32>;
@group(0) @binding(5) var<storage, read_write> sums: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> maxima: array<f32>;

@compute @workgroup_size(32u * SLICES)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = rows[params.row_start + group.y];
  let size = split_tokens(row.y);
  let split_start = group.x * size;
  if (split_start > row.y) {
    return;
  }
  let split_end = min(split_start + size, row.y + 1u);
  let head = thread % 32u;
  let slice = thread / 32u;
  let own_head = min(group.z * 32u + head, params.head_count - 1u);
  let query_start =
    ((params.row_start + group.y) * params.head_count + own_head) * params.quads +
    slice * SLICE_QUADS;
  var query = array<vec4<f32>, SLICE_QUADS>();
  // @unroll
  for (var i = 0u; i < SLICE_QUADS; i++) {
    if (slice * SLICE_QUADS + i < params.quads) {
      query[i] = absorbed[query_start + i] * params.scale;
    }
  }
  // [quad][head]
  var z = array<vec4<f32>, VALUE_QUADS * HEADS>();
  var totals = array<f32, HEADS>();
  var maximum = LOWEST;
  var next = array<vec4<f32>, LOADS>();
  // @unroll
  for (var i = 0u; i < LOADS; i++) {
    next[i] = entry_quad(row, split_start, split_end, thread + i * 32u * SLICES);
  }
  for (var start = split_start; start < split_end; start += POSITIONS) {
    // @unroll
    for (var i = 0u; i < LOADS; i++) {
      if (thread + i * 32u * SLICES < POSITIONS * SLICES * SLICE_QUADS) {
        tile[thread + i * 32u * SLICES] = next[i];
      }
    }
    workgroupBarrier();
    // @unroll
    for (var i = 0u; i < LOADS; i++) {
      next[i] = entry_quad(row, start + POSITIONS, split_end, thread + i * 32u * SLICES);
    }
    score_tile(&query, slice, head);
    workgroupBarrier();
    // Thread 32 p + head: the score at position p.
    var score = LOWEST;
    if (slice < 8u) {
      var sum = 0.0;
      // @unroll
      for (var i = 0u; i < SLICES; i++) {
        sum += partial[i * 256u + thread];
      }
      score = select(LOWEST, sum, start + slice < split_end);
      scores[thread] = score;
    }
    workgroupBarrier();
    let before = maximum;
    // @unroll
    for (var p = 0u; p < 8u; p++) {
      maximum = max(maximum, scores[p * 32u + head]);
    }
    workgroupBarrier();
    if (slice < 8u) {
      scores[thread] = select(0.0, exp(score - maximum), start + slice < split_end);
    }
    if (slice == 0u) {
      corrections[head] = select(exp(before - maximum), 0.0, start == split_start);
    }
    workgroupBarrier();
    add_tile(&z, &totals, slice, head);
    workgroupBarrier();
  }
  let first = (group.y * SPLITS + group.x) * params.head_count + group.z * 32u;
  // @unroll
  for (var h = 0u; h < HEADS; h++) {
    let index = HEADS * slice + h;
    if (group.z * 32u + index < params.head_count) {
      // @unroll
      for (var v = 0u; v < VALUE_QUADS; v++) {
        if (head + 32u * v < params.value_quads) {
          sums[(first + index) * params.value_quads + head + 32u * v] = z[v * HEADS + h];
        }
      }
      if (head == 0u) {
        maxima[2u * (first + index) + 1u] = totals[h];
      }
    }
  }
  if (slice == 0u && group.z * 32u + head < params.head_count) {
    maxima[2u * (first + head)] = maximum;
  }
}
