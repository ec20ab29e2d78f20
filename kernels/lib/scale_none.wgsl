// Weights without scales: bf16, f16, f32.

// The 16 values at [row, 16 segment ..] of matrix `matrix`, as they are.
fn scaled16(values: mat4x4<f32>, matrix: u32, row: u32, segment: u32) -> mat4x4<f32> {
  return values;
}
