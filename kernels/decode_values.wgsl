// The attended latent of one row, out of the softmaxes of its splits, through the value rows V
// [value_dim][latent_dim] of kv_b per head: o = V z, z as in mla_merge.wgsl.
//
//   rows        u32 [rows][4]: sequence, position, ...; row_start + group.y
//   sums        f32 quads [row_count][SPLITS][head_count][value_quads], as decode_attention.wgsl
//   maxima      f32 [row_count][SPLITS][head_count][2] = m, l
//   weights     kv_b, float rows [heads (nope_dim + value_dim)][segments]
//   groups_out  activation groups [rows][heads value_dim / 32][3 quads] of o
//
// One workgroup: 32 value channels of one head of one row; thread = 4 channel + lane.
// Loops: 2 splits + LATENT_QUADS / 128 (1 + splits) + segments / 4 turns.

struct Params {
  row_start: u32,
  head_count: u32,
  nope_dim: u32,
  value_dim: u32,
  latent_dim: u32,
  value_quads: u32,
  segments: u32,
  slices: u32,
  even_first: u32,
}

const LATENT_QUADS: u32 = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> sums: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> maxima: array<f32>;
@group(0) @binding(4) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> groups_out: array<vec4<u32>>;

// z, padded with zeros to whole segments.
var<workgroup> z: array<vec4<f32>, LATENT_QUADS>;
var<workgroup> lane_sums: array<f32, 128>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let head = group.x / params.slices;
  let slice = group.x % params.slices;
  let used = split_count(rows[params.row_start + group.y].y);
  let first = group.y * SPLITS * params.head_count + head;
  var maximum = maxima[2u * first];
  for (var split = 1u; split < used; split++) {
    maximum = max(maximum, maxima[2u * (first + split * params.head_count)]);
  }
  var total = 0.0;
  for (var split = 0u; split < used; split++) {
    let at = 2u * (first + split * params.head_count);
    total = fma(exp(maxima[at] - maximum), maxima[at + 1u], total);
  }
  for (var quad = thread; quad < LATENT_QUADS; quad += 128u) {
    var value = vec4(0.0);
    if (quad < params.value_quads) {
      for (var split = 0u; split < used; split++) {
        let at = first + split * params.head_count;
        value += exp(maxima[2u * at] - maximum) * sums[at * params.value_quads + quad];
      }
    }
    // The last quad may end in parts of the shared key.
    let inside = vec4(4u * quad) + vec4(0u, 1u, 2u, 3u) < vec4(params.latent_dim);
    z[quad] = select(vec4(0.0), value / total, inside);
  }
  workgroupBarrier();
  let channel = slice * 32u + thread / 4u;
  let row = head * (params.nope_dim + params.value_dim) + params.nope_dim + channel;
  var sum = 0.0;
  for (var segment = thread % 4u; segment < params.segments; segment += 4u) {
    let w = weights16(row * params.segments + segment);
    sum += (dot(w[0], z[4u * segment]) + dot(w[1], z[4u * segment + 1u])) +
      (dot(w[2], z[4u * segment + 2u]) + dot(w[3], z[4u * segment + 3u]));
  }
  lane_sums[thread] = sum;
  workgroupBarrier();
  var o = 0.0;
  if (thread < 32u) {
    o = (lane_sums[4u * thread] + lane_sums[4u * thread + 1u]) +
      (lane_sums[4u * thread + 2u] + lane_sums[4u * thread + 3u]);
  }
  let target_row = params.row_start + group.y;
  let at = ((target_row * params.head_count + head) * params.slices + slice) * 3u;
  store_group(thread, thread < 32u, o, 0.0, at, params.even_first != 0u);
}
