// tokens[row] = the best token of logit row r of the step before, where it is FEED + r.
//
//   best    [..][256] of key, id: u32
//   tokens  u32 [row_count]

struct Params {
  row_count: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
const FEED: u32 = 0x80000000u;

@group(0) @binding(1) var<storage, read> best: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> tokens: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x;
  if (row >= params.row_count || tokens[row] < FEED) {
    return;
  }
  tokens[row] = best[(tokens[row] - FEED) * 256u].y;
}
