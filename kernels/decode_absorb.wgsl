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

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row_width = params.query_width + params.latent_dim + params.shared_key_dim;
  if (group.x == 0u) {
    store_entry(group.y * row_width + params.query_width, rows[group.y], thread);
    return;
  }
  let head = (group.x - 1u) / params.head_groups;
  let first_segment = (group.x - 1u) % params.head_groups * SEGMENTS;
  let head_row = head * (params.nope_dim + params.value_dim);
  let query = group.y * row_width + head * (params.nope_dim + params.shared_key_dim);
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
  leave_sum(thread, sum);
  workgroupBarrier();
  let channel = first_segment * 16u + thread;
  if (channel < params.latent_dim) {
    absorbed[target_start + channel] = lanes_total(thread, 0.0);
  }
  if (first_segment == 0u) {
    copy_shared(query, target_start, 4u * params.quads, thread);
  }
}
