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
// 32 slice + head holds an eighth of its head's query; for z thread 32 group + lane holds the
// quads lane, lane + 32, ... of heads 4 group .. 4 group + 3. Loops: 5 positions / 8 turns.

struct Params {
  row_start: u32,
  head_count: u32,
  quads: u32,
  value_quads: u32,
  page_tokens: u32,
  scale: f32,
}

const POSITIONS: u32 = 8u;
// Quads of an entry in a slice of the query; quads of z that one thread holds of a head; quads of 8
// entries that one thread loads.
const SLICE_QUADS: u32 = 1u;
const VALUE_QUADS: u32 = 1u;
const LOADS: u32 = 1u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> absorbed: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> latents: array<latent_quad>;
@group(0) @binding(3) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> pages: array<u32>;
@group(0) @binding(5) var<storage, read_write> sums: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> maxima: array<f32>;

// [position][8 slices of SLICE_QUADS], zeros behind an entry.
var<workgroup> tile: array<vec4<f32>, POSITIONS * 8u * SLICE_QUADS>;
// [slice][position][head]
var<workgroup> partial: array<f32, 2048>;
// [position][head]: scores, then exp(score - maximum).
var<workgroup> scores: array<f32, 256>;
var<workgroup> corrections: array<f32, 32>;

// Quad `index` of the 8 entries from position `start` on; zeros from `end` on.
fn entry_quad(row: vec4<u32>, start: u32, end: u32, index: u32) -> vec4<f32> {
  let position = start + index / (8u * SLICE_QUADS);
  let quad = index % (8u * SLICE_QUADS);
  if (position >= end || quad >= params.quads) {
    return vec4(0.0);
  }
  let page = pages[row.w + position / params.page_tokens];
  let entry = (page * params.page_tokens + position % params.page_tokens) * params.quads;
  return decode_latent(latents[entry + quad]);
}

fn weights_at(position: u32, group: u32) -> vec4<f32> {
  let at = position * 32u + 4u * group;
  return vec4(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]);
}

@compute @workgroup_size(256)
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
  var z = array<mat4x4<f32>, VALUE_QUADS>();
  var totals = vec4(0.0);
  var maximum = LOWEST;
  var next = array<vec4<f32>, LOADS>();
  // @unroll
  for (var i = 0u; i < LOADS; i++) {
    next[i] = entry_quad(row, split_start, split_end, thread + i * 256u);
  }
  for (var start = split_start; start < split_end; start += POSITIONS) {
    // @unroll
    for (var i = 0u; i < LOADS; i++) {
      if (thread + i * 256u < POSITIONS * 8u * SLICE_QUADS) {
        tile[thread + i * 256u] = next[i];
      }
    }
    workgroupBarrier();
    // @unroll
    for (var i = 0u; i < LOADS; i++) {
      next[i] = entry_quad(row, start + POSITIONS, split_end, thread + i * 256u);
    }
    // @unroll
    for (var p = 0u; p < 8u; p++) {
      var sum = 0.0;
      // @unroll
      for (var i = 0u; i < SLICE_QUADS; i++) {
        sum += dot(query[i], tile[(p * 8u + slice) * SLICE_QUADS + i]);
      }
      partial[(slice * 8u + p) * 32u + head] = sum;
    }
    workgroupBarrier();
    // Thread 32 p + head: the score at position p.
    var score = 0.0;
    // @unroll
    for (var i = 0u; i < 8u; i++) {
      score += partial[i * 256u + thread];
    }
    score = select(LOWEST, score, start + slice < split_end);
    scores[thread] = score;
    workgroupBarrier();
    let before = maximum;
    // @unroll
    for (var p = 0u; p < 8u; p++) {
      maximum = max(maximum, scores[p * 32u + head]);
    }
    workgroupBarrier();
    scores[thread] = select(0.0, exp(score - maximum), start + slice < split_end);
    if (slice == 0u) {
      corrections[head] = select(exp(before - maximum), 0.0, start == split_start);
    }
    workgroupBarrier();
    let correction = vec4(corrections[4u * slice], corrections[4u * slice + 1u],
      corrections[4u * slice + 2u], corrections[4u * slice + 3u]);
    totals *= correction;
    // @unroll
    for (var v = 0u; v < VALUE_QUADS; v++) {
      z[v][0] *= correction.x;
      z[v][1] *= correction.y;
      z[v][2] *= correction.z;
      z[v][3] *= correction.w;
    }
    // @unroll
    for (var p = 0u; p < 8u; p++) {
      let weight = weights_at(p, slice);
      totals += weight;
      // @unroll
      for (var v = 0u; v < VALUE_QUADS; v++) {
        let c = tile[p * 8u * SLICE_QUADS + min(head + 32u * v, 8u * SLICE_QUADS - 1u)];
        z[v][0] = fma(vec4(weight.x), c, z[v][0]);
        z[v][1] = fma(vec4(weight.y), c, z[v][1]);
        z[v][2] = fma(vec4(weight.z), c, z[v][2]);
        z[v][3] = fma(vec4(weight.w), c, z[v][3]);
      }
    }
    workgroupBarrier();
  }
  let first = (group.y * SPLITS + group.x) * params.head_count + group.z * 32u;
  // @unroll
  for (var h = 0u; h < 4u; h++) {
    let index = 4u * slice + h;
    if (group.z * 32u + index < params.head_count) {
      // @unroll
      for (var v = 0u; v < VALUE_QUADS; v++) {
        if (head + 32u * v < params.value_quads) {
          sums[(first + index) * params.value_quads + head + 32u * v] = z[v][h];
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
