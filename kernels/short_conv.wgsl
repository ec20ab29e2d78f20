// y[t][c] = silu(sum over w of weight[c][w] u[t - (taps - 1) + w][c]), depthwise and causal over
// each sequence's own tokens; the slot's tail holds u of the taps - 1 tokens before the segment and
// is moved on to the end of it.
//
//   u        f32 [rows][channels], channels = q | k | v
//   q_taps, k_taps  f32 [key_channels][tap_stride], v_taps f32 [rest][tap_stride]: oldest tap first
//   chunks   u32 [..][4]: first row, rows, slot, rows of the segment (first chunk only, else 0)
//   tails    f32 [slots][taps - 1][channels], oldest first
//   y        f32 [rows][channels]
//
// One invocation: one channel of one chunk. Only a segment's first chunk reaches back into the
// tail (the host checks taps - 1 <= rows of a chunk) and it alone writes the tail, so none races.
// Loops: rows of a chunk * (taps + 1) + taps turns.

struct Params {
  channels: u32,
  key_channels: u32,
  taps: u32,
  tap_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> u: array<f32>;
@group(0) @binding(2) var<storage, read> q_taps: array<f32>;
@group(0) @binding(3) var<storage, read> k_taps: array<f32>;
@group(0) @binding(4) var<storage, read> v_taps: array<f32>;
@group(0) @binding(5) var<storage, read> chunks: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> tails: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;

fn tap_weight(channel: u32, tap: u32) -> f32 {
  let keys = params.key_channels;
  if (channel < keys) {
    return q_taps[channel * params.tap_stride + tap];
  }
  if (channel < 2u * keys) {
    return k_taps[(channel - keys) * params.tap_stride + tap];
  }
  return v_taps[(channel - 2u * keys) * params.tap_stride + tap];
}

// u of the token `back` tokens before row `first + i` of a chunk; before the segment, of the tail.
fn history(first: u32, i: u32, back: u32, is_first: bool, tail: u32, channel: u32) -> f32 {
  if (is_first && back > i) {
    return tails[tail + (params.taps - 1u - (back - i)) * params.channels + channel];
  }
  return u[(first + i - back) * params.channels + channel];
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let channel = id.x;
  if (channel >= params.channels) {
    return;
  }
  let chunk = chunks[id.y];
  let is_first = chunk.w > 0u;
  let kept = params.taps - 1u;
  let tail = chunk.z * kept * params.channels;
  for (var i = 0u; i < chunk.y; i++) {
    var sum = 0.0;
    for (var tap = 0u; tap < params.taps; tap++) {
      let value = history(chunk.x, i, kept - tap, is_first, tail, channel);
      sum = fma(tap_weight(channel, tap), value, sum);
    }
    y[(chunk.x + i) * params.channels + channel] = silu(sum);
  }
  if (is_first) {
    // Ascending: an old entry is read before its place is overwritten.
    for (var entry = 0u; entry < kept; entry++) {
      tails[tail + entry * params.channels + channel] =
        history(chunk.x, chunk.w - 1u, kept - 1u - entry, true, tail, channel);
    }
  }
}
