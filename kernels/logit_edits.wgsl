// logits[row][id] = (l > 0 ? l / divide : l * divide) + add, in place, one thread an edit.
//
//   edits   [count] of row, id, divide, add: u32, u32, f32, f32; a pair of row and id once
//   logits  f32 [..][width]

struct Params {
  count: u32,
  width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> edits: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> logits: array<f32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = (group.y * groups.x + group.x) * 256u + thread;
  if (index >= params.count) {
    return;
  }
  let edit = edits[index];
  let at = edit.x * params.width + edit.y;
  let divide = bitcast<f32>(edit.z);
  let logit = logits[at];
  logits[at] = select(logit * divide, logit / divide, logit > 0.0) + bitcast<f32>(edit.w);
}
