// Products of mla_prefill.wgsl, with the loads of lib/mla_loads.wgsl: scores of 64 rows with 64
// positions, and sums of the positions' values. Every sum is a chain of fma in a fixed order.

// Quads of value channels a lane has: ceil(value_dim / 64), at most 4.
override VALUE_QUADS: u32 = 2u;
override TILE_QUADS: u32 = 512u;

// Tiles under work: queries [channel quad][row] and keys [channel quad][position % 4][position / 4]
// of 16 channels; or values of 16 positions [position][quad].
var<workgroup> tile: array<vec4<f32>, TILE_QUADS>;
// Weights of 64 positions: [position quad][row].
var<workgroup> weight_tile: array<vec4<f32>, 1024>;

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
      tile[at % 4u * 64u + row] = query_quad(query, channel);
      let position = start - params.block_start + row;
      tile[256u + at % 4u * 64u + row % 4u * 16u + row / 4u] = key_quad(position, head, channel);
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
  for (var first = 0u; first < 64u && start + first < end; first += 16u) {
    workgroupBarrier();
    // @unroll
    for (var l = 0u; l < 2u; l++) {
      // @unroll
      for (var quad = 0u; quad < VALUE_QUADS; quad++) {
        let at = start - params.block_start + first + thread / 16u + 8u * l;
        let values = value_quad(at, head, 4u * (lane + 16u * quad));
        tile[((thread / 16u + 8u * l) * VALUE_QUADS + quad) * 16u + lane] = values;
      }
    }
    workgroupBarrier();
    for (var four = 0u; four < 4u; four++) {
      // [position][quad]
      var values = array<vec4<f32>, 16>();
      // @unroll
      for (var p = 0u; p < 4u; p++) {
        // @unroll
        for (var quad = 0u; quad < VALUE_QUADS; quad++) {
          values[4u * p + quad] = tile[((4u * four + p) * VALUE_QUADS + quad) * 16u + lane];
        }
      }
      // @unroll
      for (var i = 0u; i < 8u; i++) {
        let weights = weight_tile[(first / 4u + four) * 64u + thread / 16u + 8u * i];
        // @unroll
        for (var quad = 0u; quad < VALUE_QUADS; quad++) {
          var sum = (*acc)[4u * i + quad];
          sum = fma(vec4(weights.x), values[quad], sum);
          sum = fma(vec4(weights.y), values[4u + quad], sum);
          sum = fma(vec4(weights.z), values[8u + quad], sum);
          (*acc)[4u * i + quad] = fma(vec4(weights.w), values[12u + quad], sum);
        }
      }
    }
  }
}
