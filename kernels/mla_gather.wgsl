// The cache's entries at positions [start, + count) of a sequence, as floats side by side.
//
//   latents  quads [pages][page_tokens][quads] = c | p, lib/latent_*.wgsl
//   pages    u32 page numbers; the sequence's begin at page_start
//   entries  f32 quads [count][quads]
//
// One thread: one quad. No loops.

struct Params {
  start: u32,
  count: u32,
  quads: u32,
  page_tokens: u32,
  page_start: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> latents: array<latent_quad>;
@group(0) @binding(2) var<storage, read> pages: array<u32>;
@group(0) @binding(3) var<storage, read_write> entries: array<vec4<f32>>;

const THREADS: u32 = 128u;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = (group.y * groups.x + group.x) * THREADS + thread;
  if (index >= params.count * params.quads) {
    return;
  }
  let position = params.start + index / params.quads;
  let page = pages[params.page_start + position / params.page_tokens];
  let entry = page * params.page_tokens + position % params.page_tokens;
  entries[index] = decode_latent(latents[entry * params.quads + index % params.quads]);
}
