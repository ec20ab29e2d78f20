// Products of mla_prefill.wgsl, which declares its bindings and params: scores of 64 rows with 64
// positions, and sums of the positions' values. Every sum is a chain of fma in a fixed order.

// Quads of value channels a lane has: ceil(value_dim / 64), at most 4.
override VALUE_QUADS: u32 = 2u;
override TILE_QUADS: u32 = 512u;

// Tiles under work: queries [channel quad][row] and keys [channel quad][position % 4][position / 4]
// of 16 channels; or values of 16 positions [position][quad].
var<workgroup> tile: array<vec4<f32>, TILE_QUADS>;
// Weights of 64 positions: [position quad][row].
var<workgroup> weight_tile: array<vec4<f32>, 1024>;

fn query_channel(start: u32, channel: u32) -> f32 {
  if (channel < params.nope_dim + params.shared_key_dim) {
    return queries[start + channel];
  }
  return 0.0;
}

// A channel of the key of the block's position `at`; zero beyond its channels and the block.
fn key_channel(at: u32, head: u32, channel: u32) -> f32 {
  if (at >= params.block_count || channel >= params.nope_dim + params.shared_key_dim) {
    return 0.0;
  }
  if (channel < params.nope_dim) {
    let width = params.nope_dim + params.value_dim;
    return expanded[(at * params.head_count + head) * width + channel];
  }
  return entries[at * params.entry_stride + params.latent_dim + channel - params.nope_dim];
}

// Scores, before scaling, of rows thread / 16 + 8 i with positions start + 4 lane + (0 .. 3).
fn score_tile(thread: u32, row_head: u32, count: u32, head: u32, start: u32)
  -> array<vec4<f32>, 8> {
  let width = params.nope_dim + params.shared_key_dim;
  let lane = thread % 16u;
  var scores = array<vec4<f32>, 8>();
  for (var first = 0u; first < width; first += 16u) {
    workgroupBarrier();
    // @unroll
    for (var l = 0u; l < 2u; l++) {
      let at = thread + 128u * l;
      let channel = first + 4u * (at % 4u);
      let row = at / 4u;
      let query = (row_head + min(row, count - 1u) * params.head_count) * width;
      tile[at % 4u * 64u + row] = vec4(
        query_channel(query, channel), query_channel(query, channel + 1u),
        query_channel(query, channel + 2u), query_channel(query, channel + 3u));
      let position = start - params.block_start + row;
      tile[256u + at % 4u * 64u + row % 4u * 16u + row / 4u] = vec4(
        key_channel(position, head, channel), key_channel(position, head, channel + 1u),
        key_channel(position, head, channel + 2u), key_channel(position, head, channel + 3u));
    }
    workgroupBarrier();
    // @unroll
    for (var quad = 0u; quad < 4u; quad++) {
      let keys = transpose(mat4x4<f32>(
        tile[256u + quad * 64u + lane], tile[256u + quad * 64u + 16u + lane],
        tile[256u + quad * 64u + 32u + lane], tile[256u + quad * 64u + 48u + lane]));
      // @unroll
      for (var i = 0u; i < 8u; i++) {
        let query = tile[quad * 64u + thread / 16u + 8u * i];
        scores[i] = fma(vec4(query.x), keys[0], scores[i]);
        scores[i] = fma(vec4(query.y), keys[1], scores[i]);
        scores[i] = fma(vec4(query.z), keys[2], scores[i]);
        scores[i] = fma(vec4(query.w), keys[3], scores[i]);
      }
    }
  }
  return scores;
}

// acc[4 i + quad] += weights of rows thread / 16 + 8 i times the values of positions [start, + 64).
fn add_values(
  thread: u32, head: u32, start: u32, end: u32, acc: ptr<function, array<vec4<f32>, 32>>,
) {
  let lane = thread % 16u;
  let width = params.nope_dim + params.value_dim;
  for (var first = 0u; first < 64u && start + first < end; first += 16u) {
    workgroupBarrier();
    // @unroll
    for (var l = 0u; l < 2u; l++) {
      // @unroll
      for (var quad = 0u; quad < VALUE_QUADS; quad++) {
        let at = start - params.block_start + first + thread / 16u + 8u * l;
        let channel = 4u * (lane + 16u * quad);
        var values = vec4(0.0);
        if (at < params.block_count) {
          let origin = (at * params.head_count + head) * width + params.nope_dim;
          // @unroll
          for (var c = 0u; c < 4u; c++) {
            if (channel + c < params.value_dim) {
              values[c] = expanded[origin + channel + c];
            }
          }
        }
        tile[((thread / 16u + 8u * l) * VALUE_QUADS + quad) * 16u + lane] = values;
      }
    }
    workgroupBarrier();
    for (var four = 0u; four < 4u; four++) {
      // @unroll
      for (var quad = 0u; quad < VALUE_QUADS; quad++) {
        let v0 = tile[(4u * four * VALUE_QUADS + quad) * 16u + lane];
        let v1 = tile[((4u * four + 1u) * VALUE_QUADS + quad) * 16u + lane];
        let v2 = tile[((4u * four + 2u) * VALUE_QUADS + quad) * 16u + lane];
        let v3 = tile[((4u * four + 3u) * VALUE_QUADS + quad) * 16u + lane];
        // @unroll
        for (var i = 0u; i < 8u; i++) {
          let weights = weight_tile[(first / 4u + four) * 64u + thread / 16u + 8u * i];
          var sum = (*acc)[4u * i + quad];
          sum = fma(vec4(weights.x), v0, sum);
          sum = fma(vec4(weights.y), v1, sum);
          sum = fma(vec4(weights.z), v2, sum);
          (*acc)[4u * i + quad] = fma(vec4(weights.w), v3, sum);
        }
      }
    }
  }
}

fn load_output(row_head: u32, row: u32, quad: u32) -> vec4<f32> {
  let at = (row_head + row * params.head_count) * params.value_dim + 4u * quad;
  var values = vec4(0.0);
  // @unroll
  for (var c = 0u; c < 4u; c++) {
    if (4u * quad + c < params.value_dim) {
      values[c] = o[at + c];
    }
  }
  return values;
}

fn store_output(row_head: u32, row: u32, quad: u32, values: vec4<f32>) {
  let at = (row_head + row * params.head_count) * params.value_dim + 4u * quad;
  // @unroll
  for (var c = 0u; c < 4u; c++) {
    if (4u * quad + c < params.value_dim) {
      o[at + c] = values[c];
    }
  }
}
