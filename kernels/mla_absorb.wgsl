// Queries against the latents themselves (absorbed form), per head with its key rows K
// [nope_dim][latent_dim] of kv_b:
//   absorbed = K^T qn | qp
//
//   projected f32 [rows][head_count][nope_dim + shared_key_dim] = qn | qp
//   weights   elements [weight_rows][16 weight_segments], in q8 and q4 with their scales: rows
//             [row_start, + weight_rows) of kv_b, whose rows are per head nope_dim key rows,
//             then value_dim value rows
//   scales    f32 grid of the whole matrix (fp8 only)
//   absorbed  f32 [rows from first_row on][head_count][absorbed_stride], zeros after the last
//             channel; where a head's
//             key rows are split over parts, the later parts add
//
// One workgroup: 8 segments of one head of row first_row + group.y; thread = 8 lane + segment, and
// lane l takes the key rows l, l + 16, ... A head's first workgroup also copies qp.
// Loops: nope_dim / 16 + absorbed_stride / 128 + 16 turns at most.

struct Params {
  head_count: u32,
  nope_dim: u32,
  shared_key_dim: u32,
  value_dim: u32,
  latent_dim: u32,
  segments: u32,
  weight_segments: u32,
  absorbed_stride: u32,
  weight_rows: u32,
  row_start: u32,
  first_row: u32,
  head_groups: u32,
  rows_per_scale: u32,
  columns_per_scale: u32,
  scale_rows: u32,
  scale_columns: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> projected: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read_write> absorbed: array<f32>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let head = group.x / params.head_groups;
  let first_segment = group.x % params.head_groups * SEGMENTS;
  let head_row = head * (params.nope_dim + params.value_dim);
  let query = ((params.first_row + group.y) * params.head_count + head)
    * (params.nope_dim + params.shared_key_dim);
  let target_start = (group.y * params.head_count + head) * params.absorbed_stride;
  // The part's share of the head's key rows.
  let begin = max(head_row, params.row_start);
  let end = min(head_row + params.nope_dim, params.row_start + params.weight_rows);
  if (begin >= end) {
    return;
  }
  let segment = first_segment + thread % SEGMENTS;
  let lane = thread / SEGMENTS;
  var sum = mat4x4<f32>();
  if (segment < params.segments) {
    for (var row = begin + lane; row < end; row += LANES) {
      let at = (row - params.row_start) * params.weight_segments + segment;
      sum += scaled16(weights16(at), 0u, row, segment) * projected[query + row - head_row];
    }
  }
  leave_sum(thread, sum);
  workgroupBarrier();
  let channel = first_segment * 16u + thread;
  if (channel < params.latent_dim) {
    var before = 0.0;
    if (begin > head_row) {
      before = absorbed[target_start + channel];
    }
    absorbed[target_start + channel] = lanes_total(thread, before);
  }
  if (first_segment == 0u) {
    copy_shared(query, target_start, params.absorbed_stride, thread);
  }
}
