// Measures how fast an adapter reads memory: every pass reads all of `data` once.
//
//   data  vec4<u32> [groups][GROUP_QUADS]
//   sums  u32 [passes][groups] = sum of all words of a group's quads, modulo 2^32
//
// One workgroup: GROUP_QUADS quads of one pass, 8 a thread, without a loop around the loads.
// No loops.

struct Params {
  groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> data: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> sums: array<u32>;

const GROUP_QUADS: u32 = 2048u;

var<workgroup> thread_sums: array<u32, 256>;
var<workgroup> part_sums: array<u32, 16>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let first = group.x * GROUP_QUADS + thread;
  var sum = vec4(0u);
  // @unroll
  for (var i = 0u; i < 8u; i++) {
    sum += data[first + i * 256u];
  }
  thread_sums[thread] = sum.x + sum.y + sum.z + sum.w;
  workgroupBarrier();
  if (thread < 16u) {
    var part = 0u;
    // @unroll
    for (var i = 0u; i < 16u; i++) {
      part += thread_sums[thread + 16u * i];
    }
    part_sums[thread] = part;
  }
  workgroupBarrier();
  if (thread == 0u) {
    var total = 0u;
    // @unroll
    for (var i = 0u; i < 16u; i++) {
      total += part_sums[i];
    }
    sums[group.y * params.groups + group.x] = total;
  }
}
