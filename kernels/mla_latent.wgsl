// What the cache keeps of tokens: entries as lib/latent_entry.wgsl makes them.
//
//   projected   f32 [rows][latent_dim + shared_key_dim] = c | p
//   norm        f32 [latent_dim]
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
@group(0) @binding(1) var<storage, read> projected: array<f32>;
@group(0) @binding(2) var<storage, read> norm: array<f32>;
@group(0) @binding(3) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> pages: array<u32>;
@group(0) @binding(5) var<storage, read_write> latents: array<latent_quad>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  store_entry(group.x * (params.latent_dim + params.shared_key_dim), rows[group.x], thread);
}
