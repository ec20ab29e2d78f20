// flags[row] = 1 where any of logits[row] is NaN or infinite, else 0.
//
//   logits  f32 [row_count][width]
//   flags   u32 [row_count]
//
// One workgroup: one row. Loops: width / 256 + 8 turns.

struct Params {
  row_count: u32,
  width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> flags: array<u32>;

const THREADS: u32 = 256u;

var<workgroup> found: array<u32, 256>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.y * groups.x + group.x;
  if (row >= params.row_count) {
    return;
  }
  var flag = 0u;
  for (var c = thread; c < params.width; c += THREADS) {
    flag |= select(1u, 0u, is_finite(logits[row * params.width + c]));
  }
  found[thread] = flag;
  workgroupBarrier();
  for (var width = THREADS / 2u; width > 0u; width /= 2u) {
    if (thread < width) {
      found[thread] |= found[thread + width];
    }
    workgroupBarrier();
  }
  if (thread == 0u) {
    flags[row] = found[0];
  }
}
