// Values out of the attended latents, per head with its value rows V [value_dim][latent_dim] of
// kv_b: o = V z.
//
//   context  f32 [rows from first_row on][head_count][16 segments] = z, zeros after the last
//            channel
//   weights  elements [weight_rows][16 weight_segments], in q8 and q4 with their scales: rows
//            [row_start, + weight_rows) of kv_b, whose rows are per head nope_dim key rows, then
//            value_dim value rows
//   scales   f32 grid of the whole matrix (fp8 only)
//   o        f32 [rows][head_count][value_dim]
//
// One workgroup: 8 value channels of one head of row first_row + group.y; thread = 16 channel +
// lane, and lane l takes the segments l, l + 16, ... Loops: segments / 16 + 16 turns.

struct Params {
  head_count: u32,
  nope_dim: u32,
  value_dim: u32,
  segments: u32,
  weight_segments: u32,
  weight_rows: u32,
  row_start: u32,
  first_row: u32,
  head_groups: u32,
  rows_per_scale: u32,
  columns_per_scale: u32,
  scale_rows: u32,
  scale_columns: u32,
}

const THREADS: u32 = 128u;
const LANES: u32 = 16u;
const CHANNELS: u32 = 8u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> context: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read_write> o: array<f32>;

var<workgroup> lane_sums: array<f32, THREADS>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let head = group.x / params.head_groups;
  let channel = group.x % params.head_groups * CHANNELS + thread / LANES;
  let row = head * (params.nope_dim + params.value_dim) + params.nope_dim + channel;
  let used = channel < params.value_dim && row >= params.row_start &&
    row < params.row_start + params.weight_rows;
  let row_head = group.y * params.head_count + head;
  var sum = 0.0;
  if (used) {
    for (var segment = thread % LANES; segment < params.segments; segment += LANES) {
      let at = (row - params.row_start) * params.weight_segments + segment;
      let w = scaled16(weights16(at), 0u, row, segment);
      let z = (row_head * params.segments + segment) * 4u;
      sum += (dot(w[0], context[z]) + dot(w[1], context[z + 1u])) +
        (dot(w[2], context[z + 2u]) + dot(w[3], context[z + 3u]));
    }
  }
  lane_sums[thread] = sum;
  workgroupBarrier();
  if (used && thread % LANES == 0u) {
    var total = 0.0;
    for (var lane = 0u; lane < LANES; lane++) {
      total += lane_sums[thread + lane];
    }
    let o_head = row_head + params.first_row * params.head_count;
    o[o_head * params.value_dim + channel] = total;
  }
}
