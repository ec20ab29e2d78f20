// What mla_prefill.wgsl reads and writes, four channels at a time; zero beyond the last channel.

fn query_quad(start: u32, channel: u32) -> vec4<f32> {
  let width = params.nope_dim + params.shared_key_dim;
  let at = start + channel;
  if (channel + 4u <= width) {
    return vec4(queries[at], queries[at + 1u], queries[at + 2u], queries[at + 3u]);
  }
  var values = vec4(0.0);
  // @unroll
  for (var c = 0u; c < 4u; c++) {
    if (channel + c < width) {
      values[c] = queries[at + c];
    }
  }
  return values;
}

// Channels of the key of the block's position `at`; zero beyond the block, too.
fn key_quad(at: u32, head: u32, channel: u32) -> vec4<f32> {
  let nope = params.nope_dim;
  let own = (at * params.head_count + head) * (nope + params.value_dim) + channel;
  // Modulo 2^32: channel may be smaller than nope.
  let other = at * params.entry_stride + params.latent_dim + channel - nope;
  var values = vec4(0.0);
  if (at >= params.block_count) {
    return values;
  }
  if (channel + 4u <= nope) {
    return vec4(expanded[own], expanded[own + 1u], expanded[own + 2u], expanded[own + 3u]);
  }
  // @unroll
  for (var c = 0u; c < 4u; c++) {
    if (channel + c < nope) {
      values[c] = expanded[own + c];
    } else if (channel + c < nope + params.shared_key_dim) {
      values[c] = entries[other + c];
    }
  }
  return values;
}

// Channels of the value of the block's position `at`.
fn value_quad(at: u32, head: u32, channel: u32) -> vec4<f32> {
  let width = params.nope_dim + params.value_dim;
  let own = (at * params.head_count + head) * width + params.nope_dim + channel;
  var values = vec4(0.0);
  if (at >= params.block_count) {
    return values;
  }
  if (channel + 4u <= params.value_dim) {
    return vec4(expanded[own], expanded[own + 1u], expanded[own + 2u], expanded[own + 3u]);
  }
  // @unroll
  for (var c = 0u; c < 4u; c++) {
    if (channel + c < params.value_dim) {
      values[c] = expanded[own + c];
    }
  }
  return values;
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
