// What the cache keeps of a token: its latent after RMS norm, and the shared key as it is.
//   entry = weight c / sqrt(mean(c^2) + epsilon) | p
//
//   compressed  f32 [rows][latent_dim + shared_key_dim] = c | p
//   weight      f32 [latent_dim]
//   rows        u32 [rows][4]: sequence, position, slot, start of its pages
//   pages       u32 page numbers
//   latents     quads [pages][page_tokens][quads], lib/latent_*.wgsl; the last quad ends in zeros
//
// One workgroup: one row. Loops: (latent_dim + quads) / 128 + 7 turns.

struct Params {
  latent_dim: u32,
  shared_key_dim: u32,
  quads: u32,
  page_tokens: u32,
  epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> compressed: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> pages: array<u32>;
@group(0) @binding(5) var<storage, read_write> latents: array<latent_quad>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let width = params.latent_dim + params.shared_key_dim;
  let start = group.x * width;
  var squares = 0.0;
  for (var i = thread; i < params.latent_dim; i += SUM_THREADS) {
    squares = fma(compressed[start + i], compressed[start + i], squares);
  }
  let mean = workgroup_sum(thread, squares) / f32(params.latent_dim);
  let factor = 1.0 / sqrt(mean + params.epsilon);
  let row = rows[group.x];
  let page = pages[row.w + row.y / params.page_tokens];
  let entry = (page * params.page_tokens + row.y % params.page_tokens) * params.quads;
  for (var quad = thread; quad < params.quads; quad += SUM_THREADS) {
    var values = vec4(0.0);
    // @unroll
    for (var i = 0u; i < 4u; i++) {
      let channel = 4u * quad + i;
      if (channel < params.latent_dim) {
        values[i] = compressed[start + channel] * factor * weight[channel];
      } else if (channel < width) {
        values[i] = compressed[start + channel];
      }
    }
    latents[entry + quad] = encode_latent(values);
  }
}
