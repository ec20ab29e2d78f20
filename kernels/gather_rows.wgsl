// y[i] = x[rows[i]].
//
//   rows  u32 [row_count], below the rows of x
//   x     f32 [..][width]
//   y     f32 [row_count][width]
//
// One thread: one element. No loops.

struct Params {
  row_count: u32,
  width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> rows: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const THREADS: u32 = 256u;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = (group.y * groups.x + group.x) * THREADS + thread;
  if (index >= params.row_count * params.width) {
    return;
  }
  y[index] = x[rows[index / params.width] * params.width + index % params.width];
}
