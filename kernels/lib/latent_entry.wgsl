// What the cache keeps of a token: its latent after RMS norm, and the shared key as it is.
//   entry = norm c / sqrt(mean(c^2) + epsilon) | p
//
// The kernel declares projected (f32, with c | p of the row from `start` on), norm, pages, latents
// and Params with latent_dim, shared_key_dim, quads, page_tokens, epsilon, and has
// lib/latent_*.wgsl and lib/workgroup_sum.wgsl. Loops: (latent_dim + quads) / 128 + 7 turns.

// Called by a whole workgroup; `place`: sequence, position, slot, start of its pages.
fn store_entry(start: u32, place: vec4<u32>, thread: u32) {
  var squares = 0.0;
  for (var i = thread; i < params.latent_dim; i += SUM_THREADS) {
    squares = fma(projected[start + i], projected[start + i], squares);
  }
  let mean = workgroup_sum(thread, squares) / f32(params.latent_dim);
  let factor = 1.0 / sqrt(mean + params.epsilon);
  let page = pages[place.w + place.y / params.page_tokens];
  let entry = (page * params.page_tokens + place.y % params.page_tokens) * params.quads;
  for (var quad = thread; quad < params.quads; quad += SUM_THREADS) {
    var values = vec4(0.0);
    // @unroll
    for (var i = 0u; i < 4u; i++) {
      let channel = 4u * quad + i;
      if (channel < params.latent_dim) {
        values[i] = projected[start + channel] * factor * norm[channel];
      } else if (channel < params.latent_dim + params.shared_key_dim) {
        values[i] = projected[start + channel];
      }
    }
    latents[entry + quad] = encode_latent(values);
  }
}
