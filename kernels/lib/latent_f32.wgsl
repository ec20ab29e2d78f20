// Latents stored as f32: four to an element of the cache.
alias latent_quad = vec4<f32>;

fn encode_latent(values: vec4<f32>) -> latent_quad {
  return values;
}

fn decode_latent(quad: latent_quad) -> vec4<f32> {
  return quad;
}

fn rare_latent(quad: latent_quad) -> u32 {
  return 0u;
}

fn decode_plain_latent(quad: latent_quad) -> vec4<f32> {
  return quad;
}
