// Attention over the cached latents, in splits of the context: each split leaves its own softmax.
// Per row and head, over positions j <= the row's position in one split:
//   s_j = scale (absorbed . entry_j);  m = max s;  l = sum exp(s_j - m);  z = sum exp(s_j - m) c_j
//
//   absorbed  f32 quads [rows from first_row on][head_count][quads]
//   latents   quads [pages][page_tokens][quads] = c | p, lib/latent_*.wgsl
//   rows      u32 [rows][4]: sequence, position, slot, start of its pages; entry
//             first_row + row_start + group.y
//   pages     u32 page numbers
//   sums      f32 quads [batch rows][splits][head_count][value_quads] = z; value_quads covers c;
//             what the last quad holds beyond c is not used
//   maxima    f32 [batch rows][splits][head_count][2] = m, l
//
// One workgroup: 4 heads of one row in one split. The split's borders depend on positions alone.
// Tiles of 256 positions: first their scores, a position a thread; then the sums, a quad of
// channels a thread, which alone touches that quad of `sums` and rescales it as the maximum grows.
// The reductions over a head's 32 threads are in lib/head_reduce.wgsl.
// Loops a tile: 2 quads + 80 + value_quads / 128 * 256 turns.

struct Params {
  first_row: u32,
  row_start: u32,
  head_count: u32,
  head_groups: u32,
  quads: u32,
  value_quads: u32,
  page_tokens: u32,
  split_tokens: u32,
  splits: u32,
  scale: f32,
}

const THREADS: u32 = 128u;
const TILE: u32 = 256u;
const HEADS: u32 = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> absorbed: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> latents: array<latent_quad>;
@group(0) @binding(3) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> pages: array<u32>;
@group(0) @binding(5) var<storage, read_write> sums: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> maxima: array<f32>;

// First quads of the tile's entries.
var<workgroup> entries: array<u32, TILE>;
// [head][position]: scores, then exp(score - maximum).
var<workgroup> scores: array<f32, 1024>;
var<workgroup> corrections: array<f32, HEADS>;

// Scores of the tile's `count` positions from `start` on for heads from `head` on.
fn score_tile(row: vec4<u32>, query: vec4<u32>, start: u32, count: u32, thread: u32) {
  for (var p = thread; p < count; p += THREADS) {
    let position = start + p;
    let page = pages[row.w + position / params.page_tokens];
    let entry = (page * params.page_tokens + position % params.page_tokens) * params.quads;
    entries[p] = entry;
    var dots = vec4(0.0);
    for (var quad = 0u; quad < params.quads; quad++) {
      let values = decode_latent(latents[entry + quad]);
      // @unroll
      for (var h = 0u; h < 4u; h++) {
        dots[h] += dot(absorbed[query[h] + quad], values);
      }
    }
    // @unroll
    for (var h = 0u; h < 4u; h++) {
      scores[h * TILE + p] = dots[h] * params.scale;
    }
  }
}

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = rows[params.first_row + params.row_start + group.y];
  let split = group.x / params.head_groups;
  let head = group.x % params.head_groups * HEADS;
  let heads = min(vec4(head) + vec4(0u, 1u, 2u, 3u), vec4(params.head_count - 1u));
  let query = ((params.row_start + group.y) * params.head_count + heads) * params.quads;
  let split_start = split * params.split_tokens;
  let split_end = min(split_start + params.split_tokens, row.y + 1u);
  let target_head = (group.y * params.splits + split) * params.head_count + head;
  var maximum = LOWEST;
  var total = 0.0;
  for (var start = split_start; start < split_end; start += TILE) {
    let count = min(TILE, split_end - start);
    score_tile(row, query, start, count, thread);
    workgroupBarrier();
    var largest = LOWEST;
    for (var p = thread % LANES; p < count; p += LANES) {
      largest = max(largest, scores[thread / LANES * TILE + p]);
    }
    let before = maximum;
    maximum = max(maximum, head_maximum(largest, thread));
    var part = 0.0;
    for (var p = thread % LANES; p < count; p += LANES) {
      let weight = exp(scores[thread / LANES * TILE + p] - maximum);
      scores[thread / LANES * TILE + p] = weight;
      part += weight;
    }
    let correction = select(exp(before - maximum), 0.0, start == split_start);
    total = total * correction + head_sum(part, thread);
    if (thread % LANES == 0u) {
      corrections[thread / LANES] = correction;
    }
    workgroupBarrier();
    for (var quad = thread; quad < params.value_quads; quad += THREADS) {
      var acc = mat4x4<f32>();
      for (var p = 0u; p < count; p++) {
        let values = decode_latent(latents[entries[p] + quad]);
        // @unroll
        for (var h = 0u; h < 4u; h++) {
          acc[h] += scores[h * TILE + p] * values;
        }
      }
      // @unroll
      for (var h = 0u; h < 4u; h++) {
        if (head + h < params.head_count) {
          let at = (target_head + h) * params.value_quads + quad;
          if (start > split_start) {
            acc[h] += corrections[h] * sums[at];
          }
          sums[at] = acc[h];
        }
      }
    }
    workgroupBarrier();
  }
  if (thread % LANES == 0u && head + thread / LANES < params.head_count) {
    maxima[2u * (target_head + thread / LANES)] = maximum;
    maxima[2u * (target_head + thread / LANES) + 1u] = total;
  }
}
