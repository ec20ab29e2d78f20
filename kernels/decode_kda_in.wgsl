// The first dispatch of a KDA layer for sequences with one row: with x = RMSNorm(residual),
//   u = W_qkv x;  y = silu(sum over w of taps[c][w] u[t - (taps - 1) + w][c]);  low = W_low x
// and the slot's tail moves on. W_qkv is q8, q4 or fp8; W_low = f_a | g_a | b float.
//
//   x        activation groups [row_count][X_QUADS][groups] of weight residual
//   scaled   f32 quads [row_count][columns / 4] = weight residual
//   blocks   W_qkv, one block (kernels/matrix.ts)
//   weights  W_low: float rows, whose three matrices begin at segments 0, g_a_start, b_start
//   taps     f32 [channels][tap_stride]: q | k | v from 0, k_taps, v_taps on, oldest tap first
//   tails    f32 [slots][taps - 1][channels], oldest first
//   rows     u32 [row_count][4]: sequence, position, slot, pages
//   out      f32 [row_count][channels | f_a | g_a | b]
//
// One workgroup: 4 rows of W_low, which take longest and come first, or TILE of W_qkv; X_ROWS rows
// of x; workgroups of the same weights are neighbours. Loops: X_ROWS groups / 128 turns.

struct Params {
  row_count: u32,
  groups: u32,
  columns: u32,
  epsilon: f32,
  block_rows: u32,
  scale_stride: u32,
  float_tiles: u32,
  segments: u32,
  rank_rows: u32,
  gate_rows: u32,
  low_rows: u32,
  g_a_start: u32,
  b_start: u32,
  tap_stride: u32,
  k_taps: u32,
  v_taps: u32,
  keys: u32,
}

// Taps of the convolution less one: what a slot keeps.
const KEPT: u32 = 3u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scaled: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> blocks: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> taps: array<f32>;
@group(0) @binding(6) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read_write> tails: array<f32>;
@group(0) @binding(8) var<storage, read_write> out: array<f32>;

// What the convolution at channel c needs beside the new projection.
struct History {
  tail: array<f32, KEPT>,
  taps: array<f32, KEPT + 1u>,
}

fn history(c: u32, slot: u32) -> History {
  var start = c * params.tap_stride;
  if (c >= 2u * params.keys) {
    start = params.v_taps + (c - 2u * params.keys) * params.tap_stride;
  } else if (c >= params.keys) {
    start = params.k_taps + (c - params.keys) * params.tap_stride;
  }
  var result = History();
  // @unroll
  for (var w = 0u; w < KEPT; w++) {
    result.tail[w] = tails[(slot * KEPT + w) * params.block_rows + c];
    result.taps[w] = taps[start + w];
  }
  result.taps[KEPT] = taps[start + KEPT];
  return result;
}

// The convolution at channel c of the row's token, whose projection is u.
fn convolve(before: History, u: f32, c: u32, slot: u32) -> f32 {
  var past = before;
  var sum = 0.0;
  // @unroll
  for (var w = 0u; w < KEPT; w++) {
    sum = fma(past.taps[w], past.tail[w], sum);
    if (w > 0u) {
      tails[(slot * KEPT + w - 1u) * params.block_rows + c] = past.tail[w];
    }
  }
  tails[(slot * KEPT + KEPT - 1u) * params.block_rows + c] = u;
  return silu(fma(past.taps[KEPT], u, sum));
}

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let first_row = group.x % row_groups() * X_ROWS;
  let tile = group.x / row_groups();
  let stride = params.block_rows + params.low_rows;
  if (tile >= params.float_tiles) {
    let block_tile = tile - params.float_tiles;
    let row = first_row + thread / TILE;
    let c = block_tile * TILE + thread % TILE;
    let used = thread < X_ROWS * TILE && row < params.row_count && c < params.block_rows;
    let slot = rows[min(row, params.row_count - 1u)].z;
    var before = History();
    if (used) {
      before = history(c, slot);
    }
    let u = matrix_product(thread, first_row, block_tile);
    if (used) {
      out[row * stride + c] = convolve(before, u, c, slot);
    }
    return;
  }
  let low = tile * 4u + thread / 32u;
  // f_a | g_a | b: where the row's matrix begins.
  var first = 0u;
  var start = 0u;
  if (low >= params.rank_rows + params.gate_rows) {
    first = params.rank_rows + params.gate_rows;
    start = params.b_start;
  } else if (low >= params.rank_rows) {
    first = params.rank_rows;
    start = params.g_a_start;
  }
  let weight_row = min(low, params.low_rows - 1u) - first;
  let value = float_product(thread, first_row, weight_row, start);
  let row = first_row + thread % 32u;
  if (thread % 32u < X_ROWS && row < params.row_count && low < params.low_rows) {
    out[row * stride + params.block_rows + low] = value;
  }
}
