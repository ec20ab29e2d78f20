// y[row][c] = weight[c] x[row][c] / sqrt(mean over c of x[row][c]^2 + epsilon).
//
//   x       f32 [row_count][x_stride], the first `width` of each row used
//   weight  f32 [width]
//   y       f32 [row_count][y_stride], the first `width` of each row written
//
// One workgroup: one row. Loops: 2 width / 128 + 7 turns.

struct Params {
  row_count: u32,
  width: u32,
  x_stride: u32,
  y_stride: u32,
  epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.y * groups.x + group.x;
  if (row >= params.row_count) {
    return;
  }
  var squares = 0.0;
  for (var c = thread; c < params.width; c += SUM_THREADS) {
    let value = x[row * params.x_stride + c];
    squares = fma(value, value, squares);
  }
  let mean = workgroup_sum(thread, squares) / f32(params.width);
  let factor = 1.0 / sqrt(mean + params.epsilon);
  for (var c = thread; c < params.width; c += SUM_THREADS) {
    y[row * params.y_stride + c] = x[row * params.x_stride + c] * factor * weight[c];
  }
}
