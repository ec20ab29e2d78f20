// tokens[row] = the best token of logit row feeds[row] of the step before, where that is one.
//
//   feeds   u32 [row_count]; 0xffffffff: the token is known
//   best    [..][256] of key, id: u32
//   tokens  u32 [row_count]

struct Params {
  row_count: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> feeds: array<u32>;
@group(0) @binding(2) var<storage, read> best: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> tokens: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x;
  if (row >= params.row_count || feeds[row] == 0xffffffffu) {
    return;
  }
  tokens[row] = best[feeds[row] * 256u].y;
}
