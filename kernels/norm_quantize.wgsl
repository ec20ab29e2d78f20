// y[row][c] = weight[c] x[row][c] / sqrt(mean over c of x[row][c]^2 + epsilon), as in
// rms_norm.wgsl, and the same rows rounded to int8 in groups (lib/quantize_groups.wgsl).
//
//   x           f32 [row_count][width]
//   weight      f32 [width]
//   y           f32 [row_count][width]
//   words       vec2<u32> [row_count][8 steps]
//   row_scales  f32 [row_count][2 steps]
//
// One workgroup: one row. Loops: width / 128 + steps / 16 + 9 turns.

struct Params {
  row_count: u32,
  width: u32,
  steps: u32,
  epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> words: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> row_scales: array<f32>;

// A column of the row, written to y; 0 beyond the last.
fn normalized(row: u32, column: u32, factor: f32) -> f32 {
  if (column >= params.width) {
    return 0.0;
  }
  let value = x[row * params.width + column] * factor * weight[column];
  y[row * params.width + column] = value;
  return value;
}

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
    let value = x[row * params.width + c];
    squares = fma(value, value, squares);
  }
  let mean = workgroup_sum(thread, squares) / f32(params.width);
  let factor = 1.0 / sqrt(mean + params.epsilon);
  let units = 8u * params.steps;
  for (var first = 0u; first < units; first += QUANTIZE_THREADS) {
    let unit = first + thread;
    var even = vec4(0.0);
    var odd = vec4(0.0);
    // @unroll
    for (var i = 0u; i < 4u; i++) {
      even[i] = normalized(row, 8u * unit + 2u * i, factor);
      odd[i] = normalized(row, 8u * unit + 2u * i + 1u, factor);
    }
    quantize_unit(thread, row * units + unit, unit < units, even, odd);
  }
}
