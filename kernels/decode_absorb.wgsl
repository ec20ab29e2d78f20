// What an MLA layer's projections give to attention: the cache's entries of the rows, and the
// queries against them (absorbed form), per head with its key rows K [nope_dim][latent_dim].
//   entry = norm c / sqrt(mean(c^2) + epsilon) | p
//   absorbed = K^T qn | qp
//
//   projected   f32 [rows][query_width + latent_dim + shared_key_dim]: queries [head_count]
//               [nope_dim + shared_key_dim] = qn | qp, then c | p
//   weights     kv_b, float rows [heads (nope_dim + value_dim)][segments], per head nope_dim key
//               rows first
//   scales      f32 of kv_b (fp8 only)
//   norm        f32 [latent_dim]
//   rows        u32 [rows][4]: sequence, position, slot, start of its pages
//   pages       u32 page numbers
//   absorbed    f32 [rows][head_count][4 quads], zeros after the last channel
//   latents     quads [pages][page_tokens][quads], lib/latent_*.wgsl; the last quad ends in zeros
//
// The first workgroup of row group.y writes its entry. Each other one: 8 segments of 16 channels of
// one head; thread = 8 lane + segment, and lane l takes the key rows l, l + 16, ... A head's first
// also copies qp. Loops: (latent_dim + quads) / 128 + 7 turns, or 4 quads / 128.

struct Params {
  head_count: u32,
  nope_dim: u32,
  shared_key_dim: u32,
  value_dim: u32,
  latent_dim: u32,
  segments: u32,
  head_groups: u32,
  quads: u32,
  page_tokens: u32,
  query_width: u32,
  epsilon: f32,
  rows_per_scale: u32,
  columns_per_scale: u32,
  scale_rows: u32,
  scale_columns: u32,
}

const THREADS: u32 = 128u;
const LANES: u32 = 16u;
const SEGMENTS: u32 = 8u;
// Key rows of a lane.
const LANE_ROWS: u32 = 1u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> projected: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read> norm: array<f32>;
@group(0) @binding(5) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read> pages: array<u32>;
@group(0) @binding(7) var<storage, read_write> absorbed: array<f32>;
@group(0) @binding(8) var<storage, read_write> latents: array<latent_quad>;

// [lane][16 channels of 8 segments]
var<workgroup> lane_sums: array<f32, 2048>;

fn store_entry(row: u32, thread: u32) {
  let width = params.latent_dim + params.shared_key_dim;
  let start = row * (params.query_width + width) + params.query_width;
  var squares = 0.0;
  for (var i = thread; i < params.latent_dim; i += THREADS) {
    squares = fma(projected[start + i], projected[start + i], squares);
  }
  let mean = workgroup_sum(thread, squares) / f32(params.latent_dim);
  let factor = 1.0 / sqrt(mean + params.epsilon);
  let place = rows[row];
  let page = pages[place.w + place.y / params.page_tokens];
  let entry = (page * params.page_tokens + place.y % params.page_tokens) * params.quads;
  for (var quad = thread; quad < params.quads; quad += THREADS) {
    var values = vec4(0.0);
    // @unroll
    for (var i = 0u; i < 4u; i++) {
      let channel = 4u * quad + i;
      if (channel < params.latent_dim) {
        values[i] = projected[start + channel] * factor * norm[channel];
      } else if (channel < width) {
        values[i] = projected[start + channel];
      }
    }
    latents[entry + quad] = encode_latent(values);
  }
}

// Channels from latent_dim on: qp, then zeros.
fn copy_shared(query: u32, target_start: u32, thread: u32) {
  for (var i = params.latent_dim + thread; i < 4u * params.quads; i += THREADS) {
    let channel = i - params.latent_dim;
    var value = 0.0;
    if (channel < params.shared_key_dim) {
      value = projected[query + params.nope_dim + channel];
    }
    absorbed[target_start + i] = value;
  }
}

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  if (group.x == 0u) {
    store_entry(group.y, thread);
    return;
  }
  let head = (group.x - 1u) / params.head_groups;
  let first_segment = (group.x - 1u) % params.head_groups * SEGMENTS;
  let head_row = head * (params.nope_dim + params.value_dim);
  let row_start =
    group.y * (params.query_width + params.latent_dim + params.shared_key_dim);
  let query = row_start + head * (params.nope_dim + params.shared_key_dim);
  let target_start = (group.y * params.head_count + head) * 4u * params.quads;
  let segment = first_segment + thread % SEGMENTS;
  let lane = thread / SEGMENTS;
  var sum = mat4x4<f32>();
  if (segment < params.segments) {
    // @unroll
    for (var i = 0u; i < LANE_ROWS; i++) {
      let row = lane + i * LANES;
      if (row < params.nope_dim) {
        let stored = weights16((head_row + row) * params.segments + segment);
        sum += scaled16(stored, 0u, head_row + row, segment) * projected[query + row];
      }
    }
  }
  // @unroll
  for (var i = 0u; i < 16u; i++) {
    lane_sums[lane * THREADS + thread % SEGMENTS * 16u + i] = sum[i / 4u][i % 4u];
  }
  workgroupBarrier();
  let channel = first_segment * 16u + thread;
  if (channel < params.latent_dim) {
    var total = 0.0;
    // @unroll
    for (var l = 0u; l < LANES; l++) {
      total += lane_sums[l * THREADS + thread];
    }
    absorbed[target_start + channel] = total;
  }
  if (first_segment == 0u) {
    copy_shared(query, target_start, thread);
  }
}
