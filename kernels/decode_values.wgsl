// The attended latent of one row, out of the softmaxes of its splits, through the value rows V
// [value_dim][latent_dim] of kv_b per head: o = V z, z as in mla_merge.wgsl.
//
//   rows        u32 [rows][4]: sequence, position, ...; row_start + group.y
//   sums        f32 quads [row_count][splits][head_count][value_quads], as decode_attention.wgsl
//   maxima      f32 [row_count][splits][head_count][2] = m, l
//   weights     kv_b, float rows [heads (nope_dim + value_dim)][segments]
//   scales      of kv_b, lib/scale_grid.wgsl (fp8 only)
//   groups_out  activation groups [rows][X_QUADS][heads value_dim / 32] of o
//
// One workgroup: 32 value channels of one head of one row; thread = 8 channel + lane.
// Loops: LATENT_QUADS / 256 (splits / 32 + 2) turns.

struct Params {
  row_start: u32,
  splits: u32,
  head_count: u32,
  nope_dim: u32,
  value_dim: u32,
  latent_dim: u32,
  value_quads: u32,
  segments: u32,
  slices: u32,
  even_first: u32,
  rows_per_scale: u32,
  columns_per_scale: u32,
  scale_rows: u32,
  scale_columns: u32,
}

// Quads of z, padded with zeros to whole segments.
const LATENT_QUADS: u32 = 4u;
// Segments of a value row that one of its 8 lanes takes.
const LANE_SEGMENTS: u32 = 1u;
// Threads that share the splits of a quad of z, and how many of them they load at once.
const MERGERS: u32 = 2u;
const SPLIT_STEP: u32 = 16u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> sums: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> maxima: array<f32>;
@group(0) @binding(4) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> scales: array<f32>;
@group(0) @binding(6) var<storage, read_write> groups_out: array<vec4<u32>>;

// [merger][quad]
var<workgroup> z: array<vec4<f32>, MERGERS * LATENT_QUADS>;
var<workgroup> lane_sums: array<f32, 8u * 36u>;

// A merger's part of quad `quad` of z. Splits from `used` on count with the factor 0, and what is
// there is not looked at.
fn merged(first: u32, used: u32, quad: u32, merger: u32) -> vec4<f32> {
  var value = vec4(0.0);
  for (var start = merger; start < used; start += MERGERS * SPLIT_STEP) {
    // @unroll
    for (var i = 0u; i < SPLIT_STEP; i++) {
      let split = start + i * MERGERS;
      let loaded = min(split, used - 1u);
      let part = sums[(first + loaded * params.head_count) * params.value_quads + quad];
      value += select(0.0, factors[loaded], split < used) * part;
    }
  }
  return value;
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let head = group.x / params.slices;
  let slice = group.x % params.slices;
  let used = split_count(rows[params.row_start + group.y].y);
  let first = group.y * params.splits * params.head_count + head;
  let total = weigh_splits(thread, first, used);
  for (var item = thread; item < MERGERS * LATENT_QUADS; item += 256u) {
    let quad = item % LATENT_QUADS;
    var value = vec4(0.0);
    if (quad < params.value_quads) {
      value = merged(first, used, quad, item / LATENT_QUADS) / total;
    }
    // The last quad may end in parts of the shared key.
    let inside = vec4(4u * quad) + vec4(0u, 1u, 2u, 3u) < vec4(params.latent_dim);
    z[item] = select(vec4(0.0), value, inside);
  }
  workgroupBarrier();
  for (var quad = thread; quad < LATENT_QUADS; quad += 256u) {
    z[quad] += z[LATENT_QUADS + quad];
  }
  workgroupBarrier();
  let row = head * (params.nope_dim + params.value_dim) + params.nope_dim + slice * 32u +
    thread / 8u;
  var sum = 0.0;
  // @unroll
  for (var i = 0u; i < LANE_SEGMENTS; i++) {
    let segment = thread % 8u + 8u * i;
    if (segment < params.segments) {
      let w = scaled16(weights16(row * params.segments + segment), 0u, row, segment);
      sum += (dot(w[0], z[4u * segment]) + dot(w[1], z[4u * segment + 1u])) +
        (dot(w[2], z[4u * segment + 2u]) + dot(w[3], z[4u * segment + 3u]));
    }
  }
  lane_sums[thread % 8u * 36u + thread / 8u] = sum;
  workgroupBarrier();
  var o = 0.0;
  if (thread < 32u) {
    // @unroll
    for (var l = 0u; l < 8u; l++) {
      o += lane_sums[l * 36u + thread];
    }
  }
  let place = group_place(
    params.row_start + group.y, group.x, params.head_count * params.slices);
  store_group(thread, thread < 32u, o, 0.0, place, params.even_first != 0u);
}
